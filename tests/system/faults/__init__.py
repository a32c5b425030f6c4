"""What comes of every fault, at every point, in every way to play.

From a shell: ``python -m tests.system.faults`` prints the table.
"""

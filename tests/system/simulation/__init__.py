"""Deterministic simulation: the real operations, a model of everything else.

Time is virtual and one seed decides all, so a failure is played again by its seed.
From a shell: ``python -m tests.system.simulation EPISODES``.
"""

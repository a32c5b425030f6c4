"""The environments that the tests play, for every server SDK and version.

Runs by itself, with the Python of an SDK's own virtual environment, which has nothing
of this project or of pytest:

    PYTHONPATH=tests/support/servers python -m contract --log FILE [--port 0] ...
"""

"""The command line, in child processes."""

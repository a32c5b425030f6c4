"""Real servers of every supported SDK version, in child processes."""

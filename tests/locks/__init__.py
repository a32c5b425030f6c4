"""The version of each package in the cached virtual environments, a file for each."""

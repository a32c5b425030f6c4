"""The JavaScript client of the documentation, run under Node."""

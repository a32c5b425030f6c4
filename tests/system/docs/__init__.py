"""The documentation: its code runs, its site builds, its front page is right."""

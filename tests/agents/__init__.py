"""Agent programs as policies: their data, their processes, and real ones."""

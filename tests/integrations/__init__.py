"""Tests that run inside the virtual environments of training frameworks.

``python -m tests.integrations`` runs them. Each file names its environment, one of
`tests.integrations.venvs.GROUPS`, in a line of its own: ``GROUP = "training"``.
"""

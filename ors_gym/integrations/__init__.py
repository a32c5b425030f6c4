"""Plugs into training and evaluation frameworks, one module each.

Nothing here is imported by the rest of the package, and each module needs only the
extra of its own name: ``pip install "ors-gym[trl]"`` for `ors_gym.integrations.trl`.
"""

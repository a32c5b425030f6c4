"""Notebook cards, pictures and the playground."""

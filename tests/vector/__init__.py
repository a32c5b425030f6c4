"""Many sessions in one process."""

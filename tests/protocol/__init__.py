"""The protocol, tested with plain values: no socket, no clock."""

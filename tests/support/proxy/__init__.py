"""What stands between a client and a real server, and does it harm."""

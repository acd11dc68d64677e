"""The HTTP front: parses strangers' bytes, limits them, hands frames to the vault; has no keys."""

"""One framing a purpose: the bytes that are signed, built by the vault from a caller's facts."""

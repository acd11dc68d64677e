"""The drill of revocations: keys of its own, stopped one after the other while they are in use."""

"""The tour: the whole cycle of keys on a running node, as any client goes through it."""

"""The drill of rotations: one that is healthy, one that must go back, one that must halt."""

"""The one process that holds keys: checks, frames, does, commits, and only then answers."""

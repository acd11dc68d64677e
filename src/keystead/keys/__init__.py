"""Pure rules of keys: purposes, algorithms, lifecycle, handles, framing, commit decisions."""

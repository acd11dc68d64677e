"""A C2SP witness: it cosigns each log's checkpoints as long as they grow from one another."""

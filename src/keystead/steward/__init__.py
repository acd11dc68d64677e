"""The process that looks after a node and holds no key: rounds, and checks of the log."""

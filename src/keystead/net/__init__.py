"""Shells over the machine and the network: clocks, randomness, sockets."""

"""Fakes that are real implementations of the ports, and the contract suites that back ends run."""

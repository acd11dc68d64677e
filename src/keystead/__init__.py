"""Keystead: a key-usage control plane. Keys stay in one process; everybody else holds handles."""

__all__ = ["__version__"]

__version__ = "0.1.0"

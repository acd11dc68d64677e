"""Shells over databases: the registry and the log's private rows; one is told from another here."""

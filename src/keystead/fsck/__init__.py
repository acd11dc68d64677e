"""Verifies a log from storage; shares nothing with what wrote it but the pure tree and crypto."""

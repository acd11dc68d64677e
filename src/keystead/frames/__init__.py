"""Requests and answers between stranger-facing processes and vault, their codec and limits."""

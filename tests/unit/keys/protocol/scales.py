"""How far the explorers go: some seconds in every test run, further where somebody asks for it."""

import os

DEEP = os.environ.get("KEYSTEAD_MODEL") == "deep"
"""``make model`` sets it: larger bounds, a quarter of an hour."""

"""Drills: a running node goes through what it is made for, under load, and is held to it."""

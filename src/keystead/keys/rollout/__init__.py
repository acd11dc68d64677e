"""Rotation as a rollout: which version signs, when it moves on, when it goes back (section 6)."""

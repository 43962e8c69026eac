"""Checkpoint files: reading, naming, converting, writing."""

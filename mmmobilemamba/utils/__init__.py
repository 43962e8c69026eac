"""Helpers that belong to no single task."""

"""How long a test waits for what should happen."""

PATIENCE = 60.0
"""Seconds; what waits them out has failed. Long, for a machine may stand still for a while, and short of a hang."""

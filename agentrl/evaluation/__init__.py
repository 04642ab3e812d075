"""Held-out tasks: playing them, and what their numbers can say."""

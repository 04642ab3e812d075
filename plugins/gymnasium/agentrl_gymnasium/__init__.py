"""Gymnasium environments with a discrete action space, read and acted upon in words."""

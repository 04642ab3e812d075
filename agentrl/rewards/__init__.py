"""Rewards beside the environment's own: rules, judges, models that learn, and what a group knows of its states.

A reward model that cannot tell raises; it never returns a number that it made up.
"""

"""Losses: pure functions of aligned token tensors."""

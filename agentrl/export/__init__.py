"""What leaves the project: weights with their card, episodes as tables and as chat messages."""

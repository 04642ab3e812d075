"""The procedural problems of reasoning-gym, with their own scoring, as an environment."""

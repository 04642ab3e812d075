"""The text adventures of TextWorld, generated before, as an environment."""

"""A run: parts chosen by a recipe, wired together, resumed, reported and closed."""

"""Presets of the pipeline, a family of methods a file; every function here is a method that a recipe can name."""

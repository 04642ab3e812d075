"""tau-bench's retail domain, from a checkout that the user has, as an environment."""

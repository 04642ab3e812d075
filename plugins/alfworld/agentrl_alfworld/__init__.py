"""ALFWorld's household tasks as an environment: the official games by path, others generated offline."""

"""OpenEnv in both directions: its servers as an environment, and our environments as its servers."""

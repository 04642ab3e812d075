"""Mathematics that is worked out in Python: problems, a tool in a sandbox, answers checked by value."""

"""The multi-turn tasks of the Berkeley Function Calling Leaderboard (BFCL v4) as an environment."""

"""What a run may not lose: the ledger of groups and trajectories, and the payload file beside it."""

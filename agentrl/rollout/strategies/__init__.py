"""How the trajectories of one group come about."""

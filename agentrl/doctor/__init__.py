"""What works on this machine and what a run is doing: every answer comes from a look, and no look stops the others."""

"""Environments in worker processes: started, asked with deadlines, killed and replaced."""

"""What several benchmarks share; the scripts themselves lie one folder up."""

"""What learns: benchmarks whose result is a success rate, not a time. `docs/learning.md` tells what they found."""

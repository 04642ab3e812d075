"""How uncertain the policy was at a step, from the likeliest alternatives that an engine reports.

An entropy is only ever taken from what was asked for: an engine that reports less is refused, not guessed at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from agentrl.errors import ConfigError
from agentrl.types import Completion

FIRST = 20
"Sampled tokens of a step that are looked at, as in ARPO: what follows a tool's answer is decided early."


def step_entropy(completion: Completion, top: int) -> float:
    """Mean entropy of the first `FIRST` tokens, nats.

    Each is `-sum p ln p` over the `top` likeliest tokens and one bucket that holds the rest, so it lies in
    [0, ln(top + 1)] and is a lower bound of the true entropy. ARPO sums over the tokens and leaves the rest out.
    Raises `ConfigError` where the engine reports fewer than two alternatives of a token.
    """
    reported = completion.top_logprobs[:FIRST]
    fewest = min((len(alternatives) for alternatives in reported), default=0)
    if len(reported) < min(FIRST, len(completion.tokens)) or fewest < min(top, 2):
        raise ConfigError(
            f"the strategy needs the {top} likeliest tokens at every place and the engine reported {fewest}: an "
            'entropy cannot be taken. Use the engine "transformers" or "vllm", or strategy = "random_branching".'
        )
    return sum(map(_entropy, reported)) / len(reported)


def _entropy(alternatives: Mapping[int, float]) -> float:
    masses = [math.exp(logprob) for logprob in alternatives.values()]
    rest = max(0.0, 1.0 - sum(masses))
    return -sum(mass * math.log(mass) for mass in [*masses, rest] if mass > 0.0)

"""What a run paid for: every reply of a judge, in a file that only grows, so that no kill makes a run look cheaper.

A reply is paid whether or not it could be read; a verdict that was known costs nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from agentrl.errors import StoreError


@dataclass(frozen=True, slots=True)
class Prices:
    """Per million tokens, in whatever currency the bill has."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


class Bill:
    """Counts from the beginning of the run, continued from `path` where it exists."""

    def __init__(self, path: Path, prices: Prices) -> None:
        self.path = path
        self.prices = prices
        self.replies = self.prompt_tokens = self.completion_tokens = 0
        *lines, torn = path.read_bytes().split(b"\n") if path.exists() else [b""]
        for line in lines:
            self._count(*json.loads(line))
        if torn:
            os.truncate(path, path.stat().st_size - len(torn))

    @property
    def cost(self) -> float:
        return self.prices.of(self.prompt_tokens, self.completion_tokens)

    def add(self, prompt_tokens: int, completion_tokens: int) -> None:
        """One reply. Raises `StoreError`."""
        self._count(prompt_tokens, completion_tokens)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One unbuffered write a line: a kill leaves whole lines.
            with self.path.open("ab", buffering=0) as file:
                file.write(json.dumps([prompt_tokens, completion_tokens]).encode() + b"\n")
        except OSError as error:
            raise StoreError(f"the bill {self.path} cannot be written: {error}. Free space, then resume.") from error

    def __str__(self) -> str:
        tokens = f"{self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
        cost = f" · cost {self.cost:.4g}" if self.prices != Prices() else ""
        return f"{self.replies:,} replies · {tokens}{cost}"

    def _count(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.replies += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

"""Sides of a comparison, each in a process of its own, that take turns: one update for every line that a side is sent.

A side at work is alone: the other waits for its line and computes nothing. Answers are lines of JSON behind `ANSWER`,
since libraries print lines of their own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.results import middle

ANSWER = "@side "


@dataclass
class Side:
    """The timed updates of one side."""

    name: str
    rollout: list[float] = field(default_factory=list)
    learning: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    "Of the side's process and its threads; a vLLM server's is not in it."
    tokens: list[int] = field(default_factory=list)
    "Sampled in each update."
    peak_gib: float = 0.0
    "Resident memory at its highest."

    @property
    def seconds(self) -> list[float]:
        return [a + b for a, b in zip(self.rollout, self.learning, strict=True)]

    def add(self, told: dict[str, Any]) -> None:
        self.rollout.append(told["rollout"])
        self.learning.append(told["learning"])
        self.cpu.append(told["cpu"])
        self.tokens.append(told["tokens"])
        self.peak_gib = max(self.peak_gib, told["peak_gib"])

    def told(self) -> dict[str, Any]:
        parts = {"seconds": self.seconds, "rollout_seconds": self.rollout, "learning_seconds": self.learning}
        parts["cpu_seconds"] = self.cpu
        found: dict[str, Any] = {name: middle(values) for name, values in parts.items()}
        return found | {"new_tokens": self.tokens, "peak_gib": round(self.peak_gib, 2)}


class SideProcess:
    """The parent's hold on a side: `module` is run with the path of a file that holds `job` as JSON."""

    def __init__(self, name: str, module: str, job: dict[str, Any], folder: Path, paths: tuple[Path, ...] = ()) -> None:
        self.side = Side(name)
        told = folder / f"{module}-{len(list(folder.iterdir()))}.json"
        told.write_text(json.dumps(job))
        self._log = told.with_suffix(".log").open("w+")
        found = [*map(str, paths), str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found)), "HF_HUB_OFFLINE": "1"},
        )

    def wait_until_ready(self) -> None:
        self._answer()

    def update(self, *, timed: bool) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        told = self._answer()
        if timed:
            self.side.add(told)

    def close(self) -> None:
        """Its end of input is the side's end; a side that does not end is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                found: dict[str, Any] = json.loads(line[len(ANSWER) :])
                return found
        self._log.seek(0)
        raise SystemExit(f"{self.side.name} ended early:\n{self._log.read()[-3000:]}")


class Clock:
    """A side's own: `begin` when its line has come, `sampled` after the rollout, `end` answers."""

    def ready(self) -> None:
        _say({"ready": True})

    def begin(self) -> bool:
        """Waits for the line; False where the comparison is over."""
        if not sys.stdin.readline():
            return False
        self._began, self._cpu = time.perf_counter(), time.process_time()
        return True

    def sampled(self, tokens: int) -> None:
        self._sampled, self._tokens = time.perf_counter(), tokens

    def end(self) -> None:
        now = time.perf_counter()
        _say(
            {
                "rollout": self._sampled - self._began,
                "learning": now - self._sampled,
                "cpu": time.process_time() - self._cpu,
                "tokens": self._tokens,
                "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
        )


def _say(told: dict[str, Any]) -> None:
    print(ANSWER + json.dumps(told), flush=True)

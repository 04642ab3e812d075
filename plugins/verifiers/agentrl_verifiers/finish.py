"""`python -m agentrl_verifiers.finish TRACES URL`: tells `agentrl serve` what verifiers gave the rollouts of a run.

A rollout is the session of its trace's id. One that failed is told as failed: it is kept, and not scored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

DEADLINE = 60.0
"Seconds for one session."


def verdicts(traces: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Session and verdict of each run of the policy in a `traces.jsonl` of verifiers."""
    for line in traces.read_text(encoding="utf-8").splitlines():
        episode = json.loads(line)
        for trace in episode["traces"]:
            if not trace.get("agent", {}).get("trainable", True):
                continue
            if not trace["ok"]:
                errors = [*trace.get("errors", ()), *episode.get("errors", ())]
                reason = f"{errors[-1]['type']}: {errors[-1]['message']}" if errors else "their rollout failed."
                yield trace["id"], {"outcome": "failed", "reason": reason}
                continue
            rewards = {name: one for name, one in trace.get("rewards", {}).items() if one is not None}
            scores = {name: value for name, value in trace.get("metrics", {}).items() if value is not None}
            scores |= {name: one["score"] for name, one in rewards.items()}
            task = trace["task"]["data"].get("id") or trace["task"]["key"][:16]
            total = sum(one["score"] * one["weight"] for one in rewards.values())
            yield trace["id"], {"task": task, "reward": total, "scores": scores}


def main(traces: str, url: str) -> int:
    """How many sessions did not take it; each of them is said."""
    left = 0
    for session, verdict in verdicts(Path(traces)):
        body = json.dumps(verdict).encode()
        asked = Request(f"{url.rstrip('/')}/sessions/{session}/finish", body, {"Content-Type": "application/json"})
        try:
            with urlopen(asked, timeout=DEADLINE) as answer:
                told = json.load(answer)
            print(f"{session}  {told['status']}  reward {told['reward']:g}, {told['answers']} answers")
        except HTTPError as error:
            left += 1
            print(f"{session}  {error.code}  {error.read().decode(errors='replace')}")
    return left


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m agentrl_verifiers.finish outputs/RUN/traces.jsonl http://127.0.0.1:8000/v1")
    sys.exit(1 if main(sys.argv[1], sys.argv[2]) else 0)

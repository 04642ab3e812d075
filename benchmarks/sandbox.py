"""How long a sandbox takes to open, to run a line and to close, and how much memory a session has.

    python benchmarks/sandbox.py [--quick] [--backends embedded docker] [--out benchmarks/results/sandbox.json]

`cold` is the first session of a process, `warm` a later one, both with their first line; `at once` is several together.
Backends that are not installed are named and left out. Docker: the daemon that answers, as root `dockerd` starts one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from conditions import conditions
from support.memory import family, marked, proportional
from support.results import Verdict, finish, middle, options

from agentrl.errors import AgentRLError
from agentrl.plugins import load_host
from agentrl.sandbox import Limits, Sandbox
from agentrl.sandbox.guest import WORKER

BACKENDS = ("embedded", "bubblewrap", "docker", "unsafe")
LIMITS = Limits(seconds=10.0)
LINE = "x = 20\nx + 1"
WORK = "sum(i * i for i in range(100_000))"
_MARK = WORKER.encode()[:200]


async def timed(work: Awaitable[Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = await work
    return time.perf_counter() - began, found


async def opened(sandbox: Sandbox) -> Any:
    """A session that has run its first line."""
    session = await sandbox.open(LIMITS)
    ran = await session.run(LINE)
    assert ran.stdout == "21\n", ran
    return session


async def measure(name: str, sessions: int, runs: int) -> dict[str, Any]:
    sandbox: Sandbox = load_host().create("sandboxes", name)
    cold, first = await timed(opened(sandbox))
    lines = [(await timed(first.run(LINE)))[0] for _ in range(runs)]
    works = [(await timed(first.run(WORK)))[0] for _ in range(max(3, runs // 10))]
    before = memory()
    many, others = await timed(asyncio.gather(*(opened(sandbox) for _ in range(sessions))))
    used = (memory() - before) / sessions
    closes = [(await timed(session.close()))[0] for session in (first, *others)]
    warms = []
    for _ in range(sessions):
        seconds, session = await timed(opened(sandbox))
        warms.append(seconds)
        await session.close()
    await sandbox.close()
    return {
        "cold_seconds": round(cold, 6),
        "warm_seconds": middle(warms),
        "line_seconds": middle(lines),
        "work_seconds": middle(works),
        "close_seconds": middle(closes),
        "at_once_seconds": round(many, 6),
        "at_once": sessions,
        "bytes_per_session": round(used),
    }


def memory() -> int:
    """Bytes of our descendants and of every worker, in containers too; what is shared is divided."""
    return proportional(family() | marked(_MARK))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    chosen = parser.parse_args()
    before = conditions()
    measured: dict[str, Any] = {}
    for name in chosen.backends:
        try:
            measured[name] = asyncio.run(measure(name, 2 if chosen.quick else 8, 10 if chosen.quick else 200))
        except AgentRLError as error:
            print(f"{name}: left out: {error}")
    heads = ("cold ms", "warm ms", "line ms", "work ms", "close ms", "at once ms", "MiB")
    print(f"{'':12}" + "".join(f"{head:>12}" for head in heads))
    for name, told in measured.items():
        middles = [told[f"{key}_seconds"]["median"] for key in ("warm", "line", "work", "close")]
        times = [told["cold_seconds"], *middles, told["at_once_seconds"]]
        row = [*(1e3 * seconds for seconds in times), told["bytes_per_session"] / 2**20]
        print(f"{name:12}" + "".join(f"{value:12.2f}" for value in row))
    verdicts = []
    if "embedded" in measured:
        verdicts.append(
            Verdict("a line in embedded", 1e3 * measured["embedded"]["line_seconds"]["median"], "below", 1, "ms")
        )
        verdicts.append(
            Verdict("an embedded session", 1e3 * measured["embedded"]["warm_seconds"]["median"], "below", 50, "ms")
        )
    finish(chosen, before, measured, verdicts)


if __name__ == "__main__":
    main()

"""Steps a second, resets and memory of every environment that is installed, and what its place costs a step.

    python benchmarks/environments.py [--quick] [--only NAME ...] [--options NAME KEY=VALUE ...] [--out FILE]

Each environment has a process of its own, in which its oracle (else chance) is recorded once. The recorded episodes are
then played again, one at a time, in turn on the event loop, in a thread, in a worker process and in a worker with a
virtual environment of its own. There is no model and no rollout engine. A reset is that of a new instance; memory is
what one more instance in mid-episode takes, with all that it started. An environment that its author put into a
process or a virtual environment is played there alone. What is not installed, or needs options that nobody gave, is
named.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conditions import conditions
from support.results import Verdict, finish, options

from agentrl.errors import AgentRLError
from agentrl.options import check_options, parse_options
from agentrl.plugins import Host, load_host

PLACES = ("loop", "thread", "process", "own venv", "async")
PATIENCE = 180.0
"Seconds that one environment may take."
_SUPPORT = Path(__file__).parent / "support"
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "gymnasium": {"id": "FrozenLake-v1", "options": {"is_slippery": False}},
    "minigrid": {"id": "BabyAI-GoToObj-v0"},
    "reasoning_gym": {"dataset": "chain_sum"},
    "openenv": {
        "start": {
            "command": [str(Path(sys.executable).with_name("agentrl")), "serve-env", "keydoor", "--port", "{port}"],
            "keep": 0,
        },
        "prompt": "Find the key and open the door.",
    },
    "mcp": {
        "command": [sys.executable, str(_SUPPORT / "clock_server.py")],
        "tasks": str(_SUPPORT / "clock_tasks.jsonl"),
        "reward": f"{_SUPPORT / 'clock_server.py'}:reward",
    },
}
"Options for environments that cannot be made without."


def left_out(host: Host, name: str, given: Mapping[str, Any]) -> str:
    """Why it cannot be measured; empty where it can."""
    (entry,) = (entry for entry in host.entries("environments") if entry.name == name)
    if entry.state != "ok":
        return f"{entry.detail}. Run: {entry.install}" if entry.install else entry.detail
    try:
        problems = check_options(host.factory("environments", name), given, where=name).problems
    except AgentRLError as error:
        return str(error)
    return f"{'; '.join(problems)} (--options {name} KEY=VALUE)" if problems else ""


def measured(name: str, given: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    """Raises `RuntimeError` with its last words where it cannot be played."""
    sizes = {"episodes": 2, "rounds": 1, "seconds": 0.05} if quick else {"episodes": 8, "rounds": 3, "seconds": 0.3}
    request = {"name": name, "options": dict(given), "instances": 1 if quick else 4, **sizes}
    command = [sys.executable, "-m", "support.one_environment", json.dumps(request)]
    try:
        ran = subprocess.run(command, cwd=_SUPPORT.parent, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it took more than {PATIENCE:g} s") from None
    if ran.returncode:
        raise RuntimeError((ran.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return told


def table(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Each row: the own place's numbers, then microseconds a step in every place, and how many times the quickest's."""
    heads = ("runs in", "played by", "steps/s", "reset ms", "first ms", "MiB", *(f"{place} us" for place in PLACES[:4]))
    print(f"{'':16}" + "".join(f"{head:>17}" if place > 5 else f"{head:>10}" for place, head in enumerate(heads)))
    for name, told in found.items():
        times = {place: one["us_per_step"]["median"] for place, one in told["places"].items()}
        own = times[told["runs_in"]]
        row = [told["runs_in"], told["played_by"], f"{1e6 / own:,.0f}", f"{1e3 * told['reset_seconds']:.2f}"]
        row += [f"{1e3 * told['first_reset_seconds']:.1f}", f"{told['bytes_per_instance'] / 2**20:.2f}"]
        print(f"{name:16}" + "".join(f"{value:>10}" for value in row), end="")
        near = times.get("loop")
        for place in PLACES[:4]:
            ratio = f" ({times[place] / near:.1f}x)" if place in times and near else ""
            print(f"{f'{times[place]:,.0f}{ratio}' if place in times else '-':>17}", end="")
        print()


def verdicts_of(found: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """What a worker adds to a step, for the environment of which it is most."""
    verdicts = []
    for place in ("process", "own venv"):
        added = [
            told["places"][place]["us_per_step"]["median"] - told["places"]["loop"]["us_per_step"]["median"]
            for told in found.values()
            if {"loop", place} <= told["places"].keys()
        ]
        if added:
            what = f"what a worker ({place}) adds to a step, at most, of {len(added)} environments"
            verdicts.append(Verdict(what, max(added), "below", 2_000, "us"))
    return verdicts


def settings(told: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    """The examples, and what the command line says in their place."""
    found = {name: dict(given) for name, given in EXAMPLES.items()}
    return found | {words[0]: parse_options(words[1:]) for words in told}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--options", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"))
    chosen = parser.parse_args()
    before = conditions()
    host, given = load_host(), settings(chosen.options)
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in chosen.only or sorted({entry.name for entry in host.entries("environments")}):
        why = left_out(host, name, given.get(name, {}))
        if not why:
            try:
                found[name] = {**measured(name, given.get(name, {}), chosen.quick), "options": given.get(name, {})}
            except RuntimeError as error:
                why = str(error)
        if why:
            missing[name] = why
            print(f"{name}: left out: {why}", flush=True)
    table(found)
    finish(chosen, before, {"environments": found, "left_out": missing}, verdicts_of(found))


if __name__ == "__main__":
    main()

"""Steps a second, resets and memory of every environment that is installed, and what its place costs a step.

    python benchmarks/environments.py [--quick] [--only NAME ...] [--options NAME KEY=VALUE ...] [--out FILE]

Each environment has a process of its own, in which its oracle (else chance) is recorded once. The recorded episodes are
then played again, one at a time, in turn on the event loop, in a thread, in a worker process and in a worker with a
virtual environment of its own. There is no model and no rollout engine. A reset is that of a new instance; memory is
what one more instance in mid-episode takes, with all that it started. An environment that its author put into a
process or a virtual environment is played there alone. What is not installed, needs options that nobody gave, or takes
longer than its patience, is named.

With `--only`, the rows of the other environments in FILE stay as they are: a table is measured in pieces, and each row
holds the conditions under which it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conditions import conditions, load
from support.results import Verdict, finish, options

from agentrl.errors import AgentRLError
from agentrl.options import check_options, parse_options
from agentrl.plugins import Host, load_host

PLACES = ("loop", "thread", "process", "own venv", "async")
PATIENCE = 100.0
"Seconds that one environment may take."
_TO_END = 20.0
"Seconds beyond them that it has to close what it started."
_SUPPORT = Path(__file__).parent / "support"
_ROOT = Path(__file__).parent.parent
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "gymnasium": {"id": "FrozenLake-v1", "options": {"is_slippery": False}},
    "minigrid": {"id": "BabyAI-GoToObj-v0"},
    "reasoning_gym": {"dataset": "chain_sum"},
    "verifiers": {"taskset": "sums_taskset", "path": str(_ROOT / "plugins" / "verifiers" / "tests"), "wins_at": 1.25},
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


def measured(name: str, given: Mapping[str, Any], quick: bool, patience: float) -> dict[str, Any]:
    """Raises `RuntimeError` with its last words where it cannot be played."""
    sizes = {"episodes": 2, "rounds": 1, "seconds": 0.05} if quick else {"episodes": 8, "rounds": 3, "seconds": 0.3}
    request = {"name": name, "options": dict(given), "instances": 1 if quick else 4, "patience": patience, **sizes}
    command = [sys.executable, "-m", "support.one_environment", json.dumps(request)]
    late = f"it took more than {patience:g} s (--patience)"
    before, began = conditions(), time.perf_counter()
    try:
        ran = subprocess.run(command, cwd=_SUPPORT.parent, capture_output=True, text=True, timeout=patience + _TO_END)
    except subprocess.TimeoutExpired:
        raise RuntimeError(late) from None
    if ran.returncode:
        words = (ran.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise RuntimeError(late if words == "TimeoutError" else words)
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    took = {"seconds": round(time.perf_counter() - began, 1), "quick": quick}
    return {
        **told,
        "options": json.loads(portable(json.dumps(given))),
        **took,
        "conditions": before | {"load_at_end": load()},
    }


def portable(text: str) -> str:
    """Without the folder in which this project lies here."""
    return text.replace(f"{_ROOT}/", "")


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


def kept(chosen: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """The rows of `--out` that this run leaves as they are, and what is left out there with its reason."""
    if not chosen.only or chosen.out is None or not chosen.out.exists():
        return {}, {}
    told = json.loads(chosen.out.read_text(encoding="utf-8"))
    if told["quick"] != chosen.quick:
        raise SystemExit(
            f"{chosen.out} holds a run {'with' if told['quick'] else 'without'} --quick: give another --out."
        )
    # A row from before it had conditions of its own has those of its file.
    rows = {name: {"conditions": told["conditions"], **row} for name, row in told["measured"]["environments"].items()}
    others = told["measured"]["left_out"]
    return rows, {name: why for name, why in others.items() if name not in chosen.only}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--options", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"))
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds that one environment may take")
    chosen = parser.parse_args()
    before = conditions()
    host, given = load_host(), settings(chosen.options)
    found, missing = kept(chosen)
    for name in chosen.only or sorted({entry.name for entry in host.entries("environments")}):
        why = left_out(host, name, given.get(name, {}))
        found.pop(name, None)
        if not why:
            try:
                found[name] = measured(name, given.get(name, {}), chosen.quick, chosen.patience)
                print(f"{name}: {found[name]['seconds']:g} s", flush=True)
            except RuntimeError as error:
                why = str(error)
        if why:
            missing[name] = portable(why)
            print(f"{name}: left out: {why}", flush=True)
    found, missing = dict(sorted(found.items())), dict(sorted(missing.items()))
    table(found)
    finish(chosen, before, {"environments": found, "left_out": missing}, verdicts_of(found))


if __name__ == "__main__":
    main()

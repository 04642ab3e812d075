"""Proves the adapter against the benchmark: `python -m agentrl_bfcl.verify [--tasks N] [--official]`.

Every ground truth must win; silence, a call left out and an argument changed should not. Where one of these wins, the
benchmark's checks cannot tell it from the truth: with `--official` the package's own checker judges every line too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random

from agentrl import Action, Task, say
from agentrl.protocols import Environment
from agentrl_bfcl.plugin import CATEGORIES, NAME, WORLD

KINDS = ("ground truth", "silence", "a call left out", "an argument changed")


@dataclass(frozen=True, slots=True)
class Line:
    """One way to play a task."""

    task: Task
    kind: str
    actions: tuple[Action, ...]

    def turns(self) -> list[list[list[str]]]:
        """The calls in the form of the package's checker: by turn, by action, in Python's words."""
        turns: list[list[list[str]]] = [[]]
        for action in self.actions:
            if action.tool_calls:
                turns[-1].append([_python(made.name, made.arguments) for made in action.tool_calls])
            else:
                turns.append([])
        return turns[:-1]


@dataclass(frozen=True, slots=True)
class Judged:
    line: Line
    won: bool
    characters: int
    "Of the longest observation."
    official: bool | None = None


def verify(count: int | None = None, *, official: bool = False) -> list[Judged]:
    """Plays four lines of the first `count` tasks of each category, or of all."""
    judged = asyncio.run(_play(count))
    if not official:
        return judged
    verdicts = _official([one.line for one in judged])
    return [replace(one, official=verdict) for one, verdict in zip(judged, verdicts, strict=True)]


def table(judged: Sequence[Judged]) -> str:
    """Wins by category and kind of line, and where the two checkers differ."""
    played = Counter((one.line.task.tags[0], one.line.kind) for one in judged)
    won = Counter((one.line.task.tags[0], one.line.kind) for one in judged if one.won)
    rows = [f"{'':14}" + "".join(f"{kind:>22}" for kind in KINDS)]
    for category in CATEGORIES:
        cells = (f"{won[category, kind]} of {played[category, kind]}" for kind in KINDS)
        rows.append(f"{category:14}" + "".join(f"{cell:>22}" for cell in cells))
    rows.append(f"longest observation: {max(one.characters for one in judged):,} characters")
    checked = [one for one in judged if one.official is not None]
    if checked:
        differ = [f"{one.line.task.id} ({one.line.kind})" for one in checked if one.official != one.won]
        rows.append(f"the package's own checker: {len(checked)} lines, {len(differ)} judged otherwise {differ[:5]}")
    return "\n".join(rows)


async def _play(count: int | None) -> list[Judged]:
    judged = []
    world = WORLD.factory(NAME)()
    for category in CATEGORIES:
        for task in islice(WORLD.factory(NAME)(category=category).tasks("all"), count):
            await world.reset(task)
            truth = tuple(world.oracle(task))  # type: ignore[attr-defined]
            for line in _lines(task, truth):
                judged.append(await _judge(world, line))
    await world.close()
    return judged


async def _judge(world: Environment, line: Line) -> Judged:
    await world.reset(line.task)
    longest = 0
    for action in line.actions:
        result = await world.step(action)
        longest = max([longest, *(len(message.content) for message in result.observation.messages)])
    return Judged(line, result.terminated and result.reward == 1.0, longest)


def _lines(task: Task, truth: tuple[Action, ...]) -> Iterator[Line]:
    rng = Random(task.id)
    yield Line(task, "ground truth", truth)
    yield Line(task, "silence", tuple(say("") for action in truth if not action.tool_calls))
    calls = [place for place, action in enumerate(truth) if action.tool_calls]
    left_out = rng.choice(calls)
    yield Line(task, "a call left out", (*truth[:left_out], *truth[left_out + 1 :]))
    place = rng.choice([place for place in calls if truth[place].tool_calls[0].arguments])
    (made,) = truth[place].tool_calls
    name = rng.choice(sorted(made.arguments))
    other = replace(made, arguments={**made.arguments, name: _other(made.arguments[name])})
    changed = (*truth[:place], Action(tool_calls=(other,)), *truth[place + 1 :])
    yield Line(task, "an argument changed", changed)


def _other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value} x"
    return value[:-1] if isinstance(value, list) and value else [value]


def _python(name: str, arguments: object) -> str:
    assert isinstance(arguments, dict)
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _official(lines: Sequence[Line]) -> list[bool]:
    told = "\n".join(json.dumps({"id": line.task.id, "turns": line.turns()}) for line in lines)
    script = Path(__file__).with_name("official.py")
    command = [str(WORLD.folder / "bin" / "python"), "-I", str(script)]
    ran = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"the package's own checker failed:\n{ran.stderr[-2000:]}")
    return [bool(verdict) for verdict in json.loads(ran.stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Plays ground truths and wrong lines through the adapter.")
    parser.add_argument("--tasks", type=int, default=None, help="the first so many of each category; all by default")
    parser.add_argument("--official", action="store_true", help="let the package's own checker judge every line too")
    asked = parser.parse_args()
    judged = verify(asked.tasks, official=asked.official)
    print(table(judged))
    wrong = [one for one in judged if (one.line.kind == "ground truth") != one.won and one.line.kind in KINDS[:2]]
    differ = [one for one in judged if one.official not in (None, one.won)]
    sys.exit(f"{len(wrong)} lines are judged wrongly, {len(differ)} otherwise than there" if wrong or differ else 0)


if __name__ == "__main__":
    main()

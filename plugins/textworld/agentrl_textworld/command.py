"""The command `agentrl textworld make`: games for the environment, made by TextWorld in its virtual environment.

The same numbers make the same games; each is a file of its own, in `train` and in `test`.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from agentrl import AgentRLError
from agentrl_textworld import maker
from agentrl_textworld.plugin import WORLD

app = typer.Typer(
    help="Games for the environment textworld.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _group() -> None:
    """With one command alone typer would drop its name."""


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="Where the games go, below `train` and `test`.")],
    train: Annotated[int, typer.Option(min=1, help="Games to train on.")] = 8,
    test: Annotated[int, typer.Option(min=1, help="Games held out.")] = 4,
    rooms: Annotated[int, typer.Option(min=1, max=20, help="Rooms of a game.")] = 2,
    objects: Annotated[int, typer.Option(min=1, max=40, help="Things in a game, at least.")] = 5,
    length: Annotated[int, typer.Option(min=1, max=20, help="Commands of the shortest win.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the first game; each further one has the next.")] = 0,
) -> None:
    """Make games: some seconds each. A game that is there is kept."""
    python = WORLD.folder / "bin" / "python"
    if not WORLD.ready:
        raise AgentRLError("TextWorld is not installed. Run: agentrl env install textworld")
    wanted = [("train", number) for number in range(train)] + [("test", number) for number in range(test)]
    for place, (split, _) in enumerate(wanted):
        file = folder / split / f"house-{seed + place}.z8"
        if file.is_file() and file.with_suffix(".json").is_file():
            print(f"there already: {file}")
            continue
        told = {"file": str(file), "seed": seed + place, "rooms": rooms, "objects": objects, "length": length}
        ran = subprocess.run(
            [str(python), "-I", maker.__file__, json.dumps(told)], capture_output=True, text=True, check=False
        )
        if ran.returncode != 0:
            last = "\n".join(ran.stderr.strip().splitlines()[-4:])
            raise AgentRLError(f"TextWorld could not make {file} with seed {seed + place}:\n{last}")
        print(ran.stdout.strip())
    print(f"next: agentrl env check textworld games={folder}")

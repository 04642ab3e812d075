"""An episode as a file of its own, and the test that it is played again as it was.

The file is complete: environment, options, task, actions and everything that came back; it needs no run and no model.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agentrl.errors import StoreError
from agentrl.plugins import load_host
from agentrl.remote.pool import WORKERS
from agentrl.replay.playing import replayed
from agentrl.replay.script import Script, first_divergence
from agentrl.replay.source import World
from agentrl.rollout.limits import EpisodeLimits
from agentrl.types import Status

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Case:
    """What `check_case` plays."""

    episode: str
    "Its id where it was recorded."
    world: World
    script: Script
    format: int = FORMAT


def check_case(path: Path | str) -> None:
    """Play the episode in `path` again. Raises `AssertionError` at the first thing that is not as it was recorded.

    Raises `StoreError` where the file is torn, and what making the environment raises.
    """
    case = read_case(Path(path))
    host = load_host(case.world.plugins)
    try:
        limits = EpisodeLimits(max_steps=case.world.max_steps)
        now = asyncio.run(replayed(lambda: case.world.factory(host), case.script, limits))
    finally:
        WORKERS.close()
    found = first_divergence(case.script, now)
    if found is not None:
        raise AssertionError(f"{case.episode} of {case.world.name}: at step {found.step} {found}")
    assert now.reward == case.script.reward, f"it earned {case.script.reward} and earns {now.reward}"


def read_case(path: Path) -> Case:
    try:
        case = msgspec.json.decode(path.read_bytes(), type=Case)
    except (msgspec.MsgspecError, OSError) as error:
        raise StoreError(
            f"{path} is no recorded episode: {error}. Write it anew with `agentrl replay rerun`."
        ) from error
    if case.format != FORMAT:
        raise StoreError(f"{path} has format {case.format}; this version of agentrl reads {FORMAT}. Write it anew.")
    return case


def write_test(path: Path, case: Case) -> Path:
    """The pytest file `path`, and its episode beside it as JSON, whose path is returned. Neither may exist.

    Raises `StoreError`.
    """
    data = path.with_suffix(".json")
    name = re.sub(r"\W+", "_", f"{case.world.name}_{case.episode}").strip("_")
    ending = {Status.OK: "comes to its end"}.get(case.script.status, f"ends as {case.script.status.value}")
    text = (
        f'"""Episode {case.episode} of {case.world.name}, played again: {len(case.script.actions)} actions, '
        f'return {case.script.reward:g}, {case.script.outcome}."""\n\n'
        "from pathlib import Path\n\nfrom agentrl.replay import check_case\n\n\n"
        f"def test_{name}_is_as_it_was() -> None:\n"
        f'    """Every observation, reward and score, and how it {ending}."""\n'
        f'    check_case(Path(__file__).with_suffix(".json"))\n'
    )
    try:
        for place, content in ((data, msgspec.json.format(msgspec.json.encode(case), indent=1)), (path, text.encode())):
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                file.write(content + b"\n" * (place == data))
    except OSError as error:
        raise StoreError(f"the test cannot be written as {path}: {error}. Choose another name.") from error
    return data

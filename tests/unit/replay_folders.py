"""Run folders for replay tests: episodes of the lamps that were played with given actions, in a real ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from live_runs import LAMPS

from agentrl import call, say
from agentrl.config import dump_toml
from agentrl.environment import adapt
from agentrl.plugins import Host, load_host
from agentrl.replay.playing import ALONE, RecordedPlayer
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.rewarding import RewardTerm
from agentrl.sections import Config
from agentrl.store.ledger import Ledger
from agentrl.types import Action, Task, Trajectory

LINES: dict[int, Sequence[Action]] = {
    0: [call("switch", color="green"), call("switch", color="red")],
    1: [call("switch", color="green"), call("switch", color="green")],
    2: [call("switch", color="pink"), call("switch", color="red")],
    3: [call("switch", color="blue")],
    4: [say("I give up")],
}
"Actions by member; the lamps wanted are green and green. Member 3 is cut after one step, as where its context is full."


def make_world(folder: Path, source: str = LAMPS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lamps.py"
    path.write_text(source)
    return path


def make_recipe(folder: Path, plugin: Path, rewards: Sequence[dict[str, object]] = ()) -> None:
    recipe = {
        "name": "lamps",
        "plugins": [str(plugin)],
        "environment": {"name": "lamps"},
        "model": {"name": "tiny"},
        "rewards": list(rewards),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(dump_toml(Config.model_validate_json(msgspec.json.encode(recipe))))


async def make_run(folder: Path, plugin: Path, terms: Sequence[RewardTerm] = ()) -> list[Trajectory]:
    """Group g000000 of the first task, a member for each of `LINES`."""
    host: Host = load_host([str(plugin)])
    task = Task("train-0", "lamps", seed=0)
    played = []
    for member, actions in LINES.items():
        engine = RolloutEngine(
            lambda: adapt(host.create("environments", "lamps")),
            RecordedPlayer(actions),
            supervision=ALONE,
            rewards=terms,
        )
        async with engine:
            played.append(await engine.group("g000000").episode(task, member))
    with Ledger(folder) as ledger:
        ledger.issue(0, "g000000", task, [trajectory.id for trajectory in played])
        ledger.finish(*played)
    return played

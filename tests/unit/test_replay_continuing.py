"""Episodes that go on from a step of a recorded one: what is shared, what is told anew, where they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes_rollout import Engine, Renderer, World
from replay_folders import make_recipe, make_run, make_world

from agentrl.agents import oracle_agent
from agentrl.errors import ConfigError, InvalidDataError
from agentrl.replay.continuing import Going, claim, continue_from
from agentrl.replay.rerun import rerun
from agentrl.replay.source import Continued, Recorded, open_recorded
from agentrl.rollout.agents import AgentPlayer
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.tokens import TokenPlayer
from agentrl.store.reader import FolderReader
from agentrl.types import Message, Status, Task, Trajectory


@pytest.fixture
async def recorded(tmp_path: Path) -> Iterator[Recorded]:
    plugin = make_world(tmp_path / "world")
    make_recipe(tmp_path / "run", plugin)
    await make_run(tmp_path / "run", plugin)
    with open_recorded(tmp_path / "run") as found:
        yield found


def told(recorded: Recorded, step: int) -> Continued:
    return Continued(recorded.world, str(recorded.folder), "g000000-0", step, "oracle")


async def test_the_oracle_wins_from_where_another_went_wrong(recorded: Recorded, tmp_path: Path) -> None:
    parent = recorded.reader.trajectory("g000000-0")
    assert not parent.success and parent.reward == 0.5
    out = tmp_path / "out"
    claim(out, recorded, told(recorded, 1))
    played = await continue_from(recorded, parent, Going(1, times=2), AgentPlayer(oracle_agent), out)
    assert [t.success for t in played] == [True, True] and [t.reward for t in played] == [1.0, 1.0]
    for trajectory in played:
        assert trajectory.forked_from == parent.steps[0].id and trajectory.steps[0].action == parent.steps[0].action
        assert [step.index for step in trajectory.own] == [1]
    with FolderReader(out) as reader:
        rows = list(reader.rows())
        assert [(row.id, row.outcome, row.forked_from) for row in rows] == [
            (f"g000000-0@1-{member}", "success", "g000000-0.0") for member in range(2)
        ]
    # The folder says where it comes from, and can itself be taken up again.
    with open_recorded(out) as again:
        assert again.config == recorded.config
        assert all(one.same for one in await rerun(again, again.chosen([])))
    with pytest.raises(ConfigError, match="is not empty"):
        claim(out, recorded, told(recorded, 1))


async def test_a_step_that_was_not_taken_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    parent = recorded.reader.trajectory("g000000-0")
    with pytest.raises(InvalidDataError, match="cannot be forked before step 2"):
        await continue_from(recorded, parent, Going(2), AgentPlayer(oracle_agent), tmp_path / "out")


class Counter:
    """Stands where a recorded environment's name would: the counting world of the rollout tests."""

    name, options, plugins, max_steps = "counter", {}, (), None

    def factory(self, host: object) -> object:
        return World()()


class Loud(Renderer):
    """Another template: the same bytes, with another word for who speaks."""

    def _message(self, message: Message) -> list[int]:
        return super()._message(replace(message, role="system" if message.role == "user" else message.role))


async def counted() -> Trajectory:
    async with RolloutEngine(World(), TokenPlayer(Engine(), Renderer())) as engine:
        return await engine.group("g").episode(Task("t", "counter", data={"length": 4}), 0)


async def test_tokens_are_kept_where_the_renderer_writes_the_same(recorded: Recorded, tmp_path: Path) -> None:
    parent, world = await counted(), replace(recorded, world=Counter(), config=None)  # type: ignore[arg-type]
    (kept,) = await continue_from(world, parent, Going(2), TokenPlayer(Engine(), Renderer()), tmp_path / "kept")
    assert kept.status is Status.OK and [s.id for s in kept.steps[:2]] == [s.id for s in parent.steps[:2]]
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(kept.steps[:2], parent.steps, strict=False))
    # They were sampled for another episode, which may have been trained on.
    assert [step.trains for step in kept.steps] == [False, False, *[True] * (len(kept.steps) - 2)]
    assert kept.steps[2].context == parent.steps[1].id and kept.forks == 0
    assert np.array_equal(kept.steps[2].prompt, parent.steps[2].prompt)


async def test_another_template_is_told_the_messages_anew(recorded: Recorded, tmp_path: Path) -> None:
    parent, world = await counted(), replace(recorded, world=Counter(), config=None)  # type: ignore[arg-type]
    (other,) = await continue_from(world, parent, Going(2), TokenPlayer(Engine(), Loud()), tmp_path / "other")
    assert other.status is Status.OK and other.steps[2].context is None and other.forks == 1
    said = Renderer().decode(other.steps[2].prompt)
    assert said.startswith("system:task t") and f"assistant:{parent.steps[0].action.text}" in said
    assert other.steps[3].context == other.steps[2].id

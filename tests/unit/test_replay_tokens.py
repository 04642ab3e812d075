"""Messages rendered again: equal ids where nothing changed, else the first token that differs, in its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes_rollout import BYTE, Engine, Renderer, World

from agentrl.protocols import ContextPolicy
from agentrl.replay.rerender import rerender
from agentrl.rollout.context import Append, Window
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.tokens import TokenPlayer
from agentrl.types import Message, Task, TokenIds, Trajectory, token_ids

TASK = Task("t", "counter", data={"length": 5})


async def played(context: ContextPolicy, renderer: Renderer | None = None, guidance: str = "") -> Trajectory:
    async with RolloutEngine(World(), TokenPlayer(Engine(), renderer or Renderer(), context)) as engine:
        group = engine.group("g")
        parent = await group.episode(TASK, 0)
        return await group.fork(parent, 2, 1, given=guidance) if guidance else parent


@pytest.mark.parametrize("context", [Append(), Window(2), Window(0)])
async def test_the_same_renderer_gives_the_same_ids_and_the_same_forks(context: ContextPolicy) -> None:
    trajectory = await played(context)
    found = await rerender(trajectory, Renderer(), context, ())
    assert (found.differing, found.first) == (0, None)
    assert found.steps == 5 and found.forks == (trajectory.forks, trajectory.forks)
    assert found.tokens == sum(len(step.prompt) for step in trajectory.steps)


async def test_a_template_that_extends_no_more_is_counted_as_forks() -> None:
    found = await rerender(await played(Append()), Renderer(extends=False), Append(), ())
    assert found.forks == (0, 4) and found.differing == 4
    assert found.first is not None and (found.first.step, found.first.what) == (1, "context")
    assert "was it extends the step before it and is its context begins anew" in str(found.first)


class Other(Renderer):
    """Words the world's answers in another way."""

    def _message(self, message: Message) -> list[int]:
        return super()._message(replace(message, content=message.content.replace("saw", "met")))


async def test_the_first_token_that_differs_is_shown_with_the_text_around_it() -> None:
    trajectory = await played(Append())
    found = await rerender(trajectory, Other(), Append(), ())
    first = found.first
    assert first is not None and (first.step, first.what, first.position) == (1, "prompt", len("user:"))
    assert first.recorded.startswith(f"{BYTE + ord('s')} 'saw ") and first.recorded.endswith("after 'user:'")
    assert first.now.startswith(f"{BYTE + ord('m')} 'met ")
    assert str(first).startswith("step 1, token 5 of its prompt: was ")
    # What follows is rendered behind what was recorded: each step is proved by itself.
    assert found.differing == 4


async def test_sampled_tokens_that_read_otherwise_are_named() -> None:
    class Deaf(Renderer):
        def decode(self, tokens: TokenIds) -> str:
            return super().decode(tokens).upper()

    found = await rerender(await played(Append()), Deaf(), Append(), ())
    assert found.first is not None and found.first.what == "action" and found.differing == 5


async def test_guidance_that_is_read_and_not_trained_with_is_rendered_too() -> None:
    fork = await played(Append(), guidance="try the left one")
    assert len(fork.own[0].seen)
    assert (await rerender(fork, Renderer(), Append(), ())).first is None
    other = replace(fork, given="try the right one")
    found = await rerender(other, Renderer(), Append(), ())
    assert found.first is not None and found.first.what == "guidance" and "right" in found.first.now


async def test_an_episode_without_tokens_has_nothing_to_prove() -> None:
    trajectory = await played(Append())
    empty = token_ids([])
    bare = [replace(s, tokens=empty, logprobs=np.zeros(0, np.float32), versions=empty) for s in trajectory.steps]
    found = await rerender(replace(trajectory, steps=tuple(bare)), Renderer(), Append(), ())
    assert (found.steps, found.first) == (0, None) and "has no tokens" in str(found)

"""Small trajectories for tests, written as rewards and state keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentrl.types import Action, Group, Message, Observation, Status, Step, Task, Trajectory


def make_step(
    trajectory: str,
    index: int,
    *,
    reward: float = 0.0,
    state: str | None = None,
    prompt: Sequence[int] = (1, 2),
    tokens: Sequence[int] = (3, 4),
    logprobs: Sequence[float] | None = None,
    version: int = 0,
    last: bool = False,
) -> Step:
    own = f"{trajectory}/{index}"
    before = f"{trajectory}/{index - 1}" if index else None
    return Step(
        id=own,
        index=index,
        previous=before,
        context=before,
        prompt=np.array(prompt, np.int32),
        tokens=np.array(tokens, np.int32),
        logprobs=np.array(logprobs if logprobs is not None else [-1.0] * len(tokens), np.float32),
        versions=np.full(len(tokens), version, np.int32),
        action=Action("x"),
        observation=Observation((Message("user", "o"),), state_key=state),
        reward=reward,
        terminated=last,
    )


def make_trajectory(
    name: str,
    group: str,
    rewards: Sequence[float],
    *,
    states: Sequence[str | None] | None = None,
    lengths: Sequence[int] | None = None,
) -> Trajectory:
    states = states or [None] * len(rewards)
    lengths = lengths or [2] * len(rewards)
    steps = tuple(
        make_step(name, i, reward=r, state=s, tokens=range(3, 3 + n), last=i == len(rewards) - 1)
        for i, (r, s, n) in enumerate(zip(rewards, states, lengths, strict=True))
    )
    return Trajectory(id=name, task=Task(group, "test"), group=group, steps=steps, status=Status.OK)


def make_groups(**groups: Sequence[Trajectory]) -> list[Group]:
    return [Group(name, Task(name, "test"), tuple(members)) for name, members in groups.items()]

"""A rollout of verifiers, run where verifiers is installed: the policy is asked at an address, the reward is theirs.

The world's only answer is that address; what is asked there is recorded by whoever listens at it, and not here.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from typing import Any

from verifiers.v1.clients import ModelContext
from verifiers.v1.configs.agent import agent_config_fields
from verifiers.v1.configs.client import EvalClientConfig
from verifiers.v1.runtimes import SubprocessConfig
from verifiers.v1.utils.loaders import (
    default_harness_id,
    env_config_type,
    harness_class,
    load_environment,
    resolve_env_config,
)

from agentrl import Env, EnvironmentFault, Message, Observation, Task
from agentrl_verifiers.kept import Kept
from agentrl_verifiers.tasksets import Tasksets, reach

CHAT = "agentrl_verifiers"
"The harness of a seat for which neither the options nor the taskset name one."
NO_KEY = "AGENTRL_POLICY_KEY"
"A variable that is not set: the policy's address needs no key."


class Rollouts(Env):
    """One rollout of a verifiers taskset with its own loop, tools and turns; the reward is its own."""

    max_steps = 1
    step_deadline = 3600.0
    reset_deadline = 120.0

    def __init__(
        self,
        *,
        taskset: str,
        path: str = "",
        config: dict[str, Any] | None = None,
        test_config: dict[str, Any] | None = None,
        env: dict[str, Any] | None = None,
        wins_at: float = 1.0,
    ) -> None:
        """taskset: its id, a package or module that exports it. path: a folder in which that lies, if not installed.

        config: its own options. test_config: those of the held-out tasks; every fifth of the same ones if left out.
        env: the rest of their `[env]`: seats with harness and runtime, timeouts, another `id` than one agent's.
        wins_at: the reward that is a success.
        """
        folder = reach(path, taskset)
        # Their tool servers are processes that import the taskset; what the driver's own path says is not for them.
        os.environ["PYTHONPATH"] = folder
        self.wins_at = wins_at
        self._train = _kept(taskset, json.dumps([config or {}, env or {}]))
        self._test = self._train if test_config is None else _kept(taskset, json.dumps([test_config, env or {}]))
        test = None if test_config is None else self._test.theirs.taskset
        self._tasksets = Tasksets(taskset, "verifiers_rollouts", self._train.theirs.taskset, test)
        self._task: Task
        self._trace: Any = None

    def tasks(self, split: str) -> Iterator[Task]:
        return self._tasksets.tasks(split)

    def reset(self, task: Task) -> Observation:
        self._tasksets.find(task)
        self._task, self._trace = task, None
        return Observation((Message("user", "Where is the policy?"),))

    async def answered(self, text: str) -> None:
        """`text`: the address of an OpenAI-compatible API that records what it is asked."""
        kept = self._test if self._task.data["split"] == "test" else self._train
        context = ModelContext(model="policy", client=EvalClientConfig(base_url=text, api_key_var=NO_KEY))
        theirs = await kept.served()
        episode = await theirs.run_episode(self._tasksets.find(self._task), context)
        self._trace = _judged(episode, context)

    def done(self) -> bool:
        return self._trace is not None

    def reward(self) -> float:
        return float(self._trace.reward)

    def scores(self) -> dict[str, float]:
        trace = self._trace
        rewards = {name: one.score for name, one in trace.rewards.items() if one is not None}
        metrics = {name: value for name, value in trace.metrics.items() if value is not None}
        return {**metrics, **rewards, "success": float(trace.reward >= self.wins_at)}


@functools.cache
def _kept(taskset: str, options: str) -> Kept:
    """One for all episodes of this process that are played with these options."""
    own, env = json.loads(options)
    return Kept(_loaded(taskset, own, env))


def _loaded(taskset: str, options: dict[str, Any], env: dict[str, Any]) -> Any:
    """Their environment. Raises `ValueError` in verifiers' own words where there is none, or it takes no such options.

    A seat runs as a process here and in the chat program, where nothing else is said.
    """
    try:
        seats = agent_config_fields(env_config_type(taskset, env.get("id", ""))())
        plain = default_harness_id(taskset) == "bash"
        told = {name: {"runtime": {"type": "subprocess"}, **env.get(name, {})} for name in seats}
        for name, seat in seats.items():
            if seat.harness.id == "null" if seat.harness is not None else plain:
                told[name].setdefault("harness", {"id": CHAT})
        found = load_environment(resolve_env_config({**env, **told, "taskset": {"id": taskset, **options}}))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"has taskset {taskset!r}, which cannot be loaded: {error}") from error
    harnesses = found.config.agent_harnesses()
    for name, seat in agent_config_fields(found.config).items():
        program = harnesses[name].id
        if isinstance(seat.runtime, SubprocessConfig) and harness_class(program).EXECUTES_CODE:
            raise ValueError(
                f"has a seat {name!r} whose harness {program!r} runs what the policy writes, in a process of this "
                f'machine. Name a runtime that is apart, as env = {{{name} = {{runtime = {{type = "docker"}}}}}}.'
            )
    return found


def _judged(episode: Any, context: ModelContext) -> Any:
    """The trace whose reward is the episode's. Raises `EnvironmentFault` where the episode is none of one policy."""
    errors = [*episode.errors, *(error for trace in episode.traces for error in trace.errors if not trace.ok)]
    if not episode.ok:
        told = f"{errors[-1].type}: {errors[-1].message}" if errors else "without a reason"
        raise EnvironmentFault(f"their rollout failed: {told}")
    for trace in episode.traces:
        if not trace.agent.trainable and trace.agent.config.client == context.client:
            raise EnvironmentFault(
                f"the seat {trace.agent.name!r} is not to be trained and asked the policy. Name an endpoint of its "
                f'own, as env = {{{trace.agent.name} = {{model = "...", client = {{base_url = "..."}}}}}}.'
            )
    trained = [trace for trace in episode.traces if trace.agent.trainable]
    if len(trained) != 1:
        raise EnvironmentFault(
            f"their rollout has {len(trained)} runs of the policy with a reward each; an episode here has one."
        )
    return trained[0]

"""The environment `verifiers`: the prompt of a task of theirs, one answer, and the rewards that their task gives it.

Nothing is scored in part: a taskset that needs tools, a box or several turns is refused with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import verifiers.v1 as vf
from verifiers.v1.state import state_cls
from verifiers.v1.types import content_text
from verifiers.v1.utils.loaders import load_taskset, taskset_config_type

from agentrl import Action, Env, EnvironmentFault, Message, Observation, Task, say
from agentrl_verifiers.tasksets import Tasksets, reach

Role = Literal["system", "user", "assistant"]


class VerifiersWorld(Env):
    """One answer to a task of a verifiers taskset; the reward is the weighted sum of its own rewards."""

    max_steps = 1
    step_deadline = 120.0
    reset_deadline = 120.0

    def __init__(
        self,
        *,
        taskset: str,
        path: str = "",
        config: dict[str, Any] | None = None,
        test_config: dict[str, Any] | None = None,
        answer: str = "answer",
        wins_at: float = 1.0,
    ) -> None:
        """taskset: its id, a package or module that exports it. path: a folder in which that lies, if not installed.

        config: its own options. test_config: those of the held-out tasks; every fifth of the same ones if left out.
        answer: the field of its data that the oracle says. wins_at: the reward that is a success.
        """
        reach(path, taskset)
        self.taskset = taskset
        self.answer = answer
        self.wins_at = wins_at
        test = None if test_config is None else _loaded(taskset, test_config)
        self._tasksets = Tasksets(taskset, "verifiers", _loaded(taskset, config or {}), test)
        self._now: Any = None
        self._reward = 0.0
        self._scores: dict[str, float] = {}
        self._answered = False

    def tasks(self, split: str) -> Iterator[Task]:
        return self._tasksets.tasks(split)

    def reset(self, task: Task) -> Observation:
        self._now = self._tasksets.find(task)
        if lacking := _beyond_one_answer(self._now):
            raise EnvironmentFault(
                f"{task.id!r} cannot be played as one question and one answer: {lacking}. The environment "
                "verifiers_rollouts lets their own rollout play it."
            )
        self._reward, self._scores, self._answered = 0.0, {}, False
        return Observation(tuple(_shown(self._now.data)))

    async def answered(self, text: str) -> None:
        self._answered = True
        trace = _trace(self._now, text)
        await self._now.score(trace)
        self._reward = float(trace.reward)
        rewards = {name: one.score for name, one in trace.rewards.items() if one is not None}
        metrics = {name: value for name, value in trace.metrics.items() if value is not None}
        self._scores = {**metrics, **rewards}

    def done(self) -> bool:
        return self._answered

    def reward(self) -> float:
        return self._reward

    def scores(self) -> dict[str, float]:
        return {**self._scores, "success": float(self._answered and self._reward >= self.wins_at)}

    def oracle(self, task: Task) -> Iterable[Action]:
        """Raises `ValueError` where the data has no such field: then nothing proves that the task can be won."""
        if self.answer not in type(self._now.data).model_fields:
            fields = sorted(set(type(self._now.data).model_fields) - set(vf.TaskData.model_fields))
            raise ValueError(
                f"the data of {self.taskset!r} has no field {self.answer!r} that the oracle could say; its own fields "
                f"are {fields}. Name one with answer=."
            )
        yield say(str(getattr(self._now.data, self.answer)))


def _loaded(name: str, options: dict[str, Any]) -> Any:
    """Raises `ValueError` in verifiers' own words where there is no such taskset, or it takes no such options."""
    try:
        return load_taskset(taskset_config_type(name).model_validate({"id": name, **options}))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"has taskset {name!r}, which cannot be loaded: {error}") from error


def _beyond_one_answer(task: Any) -> str:
    """What the task needs beside an answer; empty where it needs nothing."""
    kind = type(task)
    if task.data.prompt is None:
        return "it has no prompt, a user opens the conversation"
    if kind.NEEDS_CONTAINER or task.data.image:
        return "it runs in a container"
    if kind.toolsets(task.config):
        return "it has tools"
    own = [
        name for name in ("setup", "finalize", "stage_verifier") if getattr(kind, name) is not getattr(vf.Task, name)
    ]
    if own:
        return f"it works in a runtime ({', '.join(own)})"
    needing = [function.__name__ for function in task.hooks("reward") if _needs_runtime(function)]
    if needing:
        return f"its rewards {', '.join(needing)} look into a runtime"
    return ""


def _needs_runtime(function: Any) -> bool:
    parameter = inspect.signature(function).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _shown(data: Any) -> Iterator[Message]:
    prompt: str | Sequence[Any] = data.prompt
    if data.system_prompt:
        yield Message("system", data.system_prompt)
    if isinstance(prompt, str):
        yield Message("user", prompt)
        return
    for said in prompt:
        if said.role not in ("system", "user", "assistant") or getattr(said, "tool_calls", None):
            raise EnvironmentFault(f"a prompt holds a message of {said.role!r} with calls; only words can be shown.")
        if not isinstance(said.content, str) and any(part.type != "text" for part in said.content or ()):
            raise EnvironmentFault("a prompt holds an image; only words can be shown.")
        yield Message(said.role, content_text(said.content))


def _trace(task: Any, text: str) -> Any:
    """What their scoring reads: the prompt, and the answer as the one turn that was sampled."""
    about = vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    agent = vf.AgentInfo(config=vf.AgentConfig())
    trace = vf.Trace(task=about, state=state_cls(type(task))(), agent=agent, is_completed=True, ok=True)
    parent = None
    for said in _shown(task.data):
        kinds = {"system": vf.SystemMessage, "user": vf.UserMessage, "assistant": vf.AssistantMessage}
        trace.nodes.append(vf.MessageNode(parent=parent, message=kinds[said.role](content=said.content)))
        parent = len(trace.nodes) - 1
    trace.nodes.append(vf.MessageNode(parent=parent, sampled=True, message=vf.AssistantMessage(content=text)))
    return trace

"""What a teacher is told of each task, and the prompts that tell it: for methods that distil a policy into itself.

A hint is made in a fresh environment, reset to the task; nothing held out is ever hinted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentrl.errors import ConfigError
from agentrl.method import Hint
from agentrl.protocols import ContextPolicy, Environment, HasOracle, Renderer
from agentrl.rollout.privilege import privileged_prompts
from agentrl.types import Group, Task, TokenIds, ToolSpec


@dataclass(frozen=True, slots=True)
class Hints:
    """Makes the teacher's prompts for the groups of a batch."""

    hint: Hint
    environment: Callable[[], Environment]
    renderer: Renderer
    context: ContextPolicy

    def check(self) -> None:
        """Raises `ConfigError` where the environment cannot give such a hint."""
        if self.hint.source == "oracle" and not isinstance(self.environment(), HasOracle):
            raise ConfigError(
                "the hint is the oracle's moves and the environment has no `oracle(task)`. Give it one, or set "
                'hint = "answer" and answer = the key of Task.data that holds the answer.'
            )

    async def prompts(self, groups: Sequence[Group]) -> dict[str, TokenIds]:
        """By step, for every step that begins a context. Raises `ConfigError` where a task has no hint."""
        told = await asyncio.gather(*(self._tell(group.task) for group in groups))
        found: dict[str, TokenIds] = {}
        for group, (text, tools) in zip(groups, told, strict=True):
            for trajectory in group.trajectories:
                found |= privileged_prompts(trajectory, text, self.renderer, self.context, tools)
        return found

    async def _tell(self, task: Task) -> tuple[str, Sequence[ToolSpec]]:
        """The hint of a task, and the tools that its prompts list."""
        environment = self.environment()
        try:
            await environment.reset(task)
            tools = environment.tools()
            text = await self._moves(environment, task, tools) if self.hint.source == "oracle" else self._answer(task)
            return self.hint.frame.replace("{hint}", text), tools
        finally:
            await environment.close()

    async def _moves(self, environment: Environment, task: Task, tools: Sequence[ToolSpec]) -> str:
        """The oracle's moves, one a line, as the policy would say them."""
        assert isinstance(environment, HasOracle)
        said = []
        for action in environment.oracle(task):
            tokens = self.renderer.action_tokens(action, tools)
            stopped = len(tokens) > 0 and int(tokens[-1]) in self.renderer.stop_token_ids
            said.append(self.renderer.decode(tokens[:-1] if stopped else tokens).strip())
            result = await environment.step(action)
            if result.terminated or result.truncated:
                break
        return "\n".join(said)

    def _answer(self, task: Task) -> str:
        value = task.data.get(self.hint.key)
        if value is None or value == "":
            raise ConfigError(
                f"task {task.id!r} has no answer under {self.hint.key!r}; its data has "
                f"{', '.join(sorted(task.data)) or 'nothing'}. Name the key of the right answer as `answer`."
            )
        return str(value)

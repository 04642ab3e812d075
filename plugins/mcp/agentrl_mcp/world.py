"""The environment `mcp`: the tools of an MCP server, fresh for every episode.

The server's own errors are told to the model; a server that does not start, hangs or dies is a fault, never a reward.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from agentrl import Action, EnvironmentFault, Message, Observation, StepResult, Task, ToolCall, ToolSpec
from agentrl.outcomes import unknown_tool
from agentrl_mcp.connection import START_SECONDS, Answer, Connection, Server
from agentrl_mcp.grading import Called, Played, graded, load_reward, read_tasks

TEXT_LIMIT = 20_000
"Characters of one answer that are shown; of a longer one the model is told how much there is."


class McpWorld:
    """Implements `agentrl.protocols.Environment`: the prompt of a task, the server's tools, the user's reward.

    The episode ends when the model answers without calling a tool.
    """

    def __init__(
        self,
        *,
        tasks: str,
        reward: str,
        command: list[str] | None = None,
        url: str = "",
        only: list[str] | None = None,
        max_steps: int = 16,
        deadline: float = 30.0,
    ) -> None:
        """tasks: a file of JSON lines. reward: package.module:function or file.py:function. command: starts a server
        for each episode, in a folder of its own ({folder} in it). url: of a server that is up, in place of a command.
        only: the tools to offer, all if left out. max_steps: decisions an episode. deadline: seconds for one call; to
        come up a server has a minute.
        """
        if bool(command) == bool(url):
            raise ValueError("needs one of command and url: a server to start, or the address of one that is up.")
        self.max_steps = max_steps
        self.step_deadline = 2 * deadline
        self.reset_deadline = START_SECONDS + deadline
        self._server = Server(tuple(command or ()), url)
        self._path = Path(tasks)
        if not self._path.is_file():
            raise ValueError(f"has tasks {tasks!r}, which is no file; name one of JSON lines.")
        self._reward = load_reward(reward)
        self._only = only
        self._deadline = deadline
        self._connection: Connection | None = None
        self._folder: Path | None = None
        self._task: Task | None = None
        self._calls: list[Called] = []
        self._steps = 0

    def tasks(self, split: str) -> Iterable[Task]:
        return read_tasks(self._path, split)

    def tools(self) -> Sequence[ToolSpec]:
        """The server's; none before the first reset, since a server is asked for them."""
        found = () if self._connection is None else self._connection.tools
        return [tool for tool in found if self._only is None or tool.name in self._only]

    async def reset(self, task: Task) -> Observation:
        await self.close()
        self._task, self._calls, self._steps = task, [], 0
        self._folder = Path(tempfile.mkdtemp(prefix="agentrl-mcp-"))
        for name, text in task.data.get("files", {}).items():
            self._inside(name).parent.mkdir(parents=True, exist_ok=True)
            self._inside(name).write_text(text, encoding="utf-8")
        self._connection = Connection(self._server, self._folder, self._deadline)
        await self._connection.open()
        missing = set(self._only or ()) - {tool.name for tool in self._connection.tools}
        if missing:
            raise EnvironmentFault(f"the MCP server `{self._server}` has no tools {sorted(missing)}; see `only`.")
        return Observation((Message("user", task.data["prompt"]),))

    async def step(self, action: Action) -> StepResult:
        self._steps += 1
        if not action.tool_calls:
            return await self._ended(action.text)
        messages, mistakes = [], []
        for made in action.tool_calls:
            answer = await self._use(made)
            shown = _cut(answer.text)
            messages.append(Message("tool", shown, name=made.name, call_id=made.id))
            mistakes += [shown] if answer.error else []
        if self._steps >= self.max_steps:
            grade = await self.grade()
            return StepResult(Observation(tuple(messages)), grade.reward, grade.scores, truncated=True)
        return StepResult(Observation(tuple(messages)), policy_error="; ".join(mistakes))

    async def grade(self) -> StepResult:
        """What the episode is worth where it stands."""
        return await self._graded("")

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        folder, self._folder = self._folder, None
        if connection is not None:
            await connection.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    async def _ended(self, answer: str) -> StepResult:
        grade = await self._graded(answer)
        return StepResult(Observation(()), grade.reward, grade.scores, terminated=True)

    async def _graded(self, answer: str) -> StepResult:
        connection, folder, task = self._connection, self._folder, self._task
        if connection is None or folder is None or task is None:
            raise EnvironmentFault("there is no episode to grade: call `reset` first.")

        async def ask(name: str, arguments: Mapping[str, object]) -> str:
            return (await connection.call(name, arguments)).text

        reward, scores = await graded(self._reward, Played(task, tuple(self._calls), answer, folder, ask))
        return StepResult(Observation(()), reward, {"success": float(reward >= 1), **scores})

    async def _use(self, made: ToolCall) -> Answer:
        if self._connection is None:
            raise EnvironmentFault("there is no episode to act in: call `reset` first.")
        known = [tool.name for tool in self.tools()]
        if made.name in known:
            answer = await self._connection.call(made.name, made.arguments)
        else:
            answer = Answer(unknown_tool(made.name, known), True)
        self._calls.append(Called(made.name, made.arguments, answer.text, answer.error))
        return answer

    def _inside(self, name: str) -> Path:
        """A file of the episode's folder. Raises `ValueError` where the name leads out of it."""
        assert self._folder is not None
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder.resolve()):
            raise ValueError(f"the task's file {name!r} lies outside of the episode's folder.")
        return path


def _cut(text: str) -> str:
    if len(text) <= TEXT_LIMIT:
        return text
    return f"{text[:TEXT_LIMIT]}\n[cut: {len(text):,} characters, the first {TEXT_LIMIT:,} are shown]"

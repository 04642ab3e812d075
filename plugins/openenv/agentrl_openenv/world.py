"""The environment `openenv`: one session with an OpenEnv server for each episode, rewards as the server gives them.

What the server refuses of a call is told to the model; a server that is not there, does not answer, or raises is a
fault, never a reward.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl import Action, EnvironmentFault, Message, Observation, StepResult, Task, ToolCall, ToolSpec, call
from agentrl.agents import random_arguments
from agentrl.outcomes import unknown_tool
from agentrl_openenv.interface import LIST_TOOLS, Interface, decision, interface_of, listed
from agentrl_openenv.launch import SERVERS, Program, Server
from agentrl_openenv.session import Refused, Session
from agentrl_openenv.tasks import lines, seeds
from agentrl_openenv.words import answer, in_words

TEXT_LIMIT = 20_000
"Characters of one message that are shown."


@dataclass(slots=True)
class _Play:
    """Where an episode stands."""

    session: Session
    interface: Interface
    tools: tuple[ToolSpec, ...]
    server: Server | None
    "That was started here."
    steps: int = 0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one call gave."""

    messages: tuple[Message, ...]
    reward: float = 0.0
    done: bool = False
    mistake: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is made of a server's answers, and of words without a call."""

    show: tuple[str, ...] = ()
    "Fields of the observation to show, in this order; all that are not empty if there are none."
    speech: str = ""
    "The field of the action that takes what the model says without a call, which else ends the episode."
    mistakes: tuple[str, ...] = ()
    "Pieces of the server's error texts that are the model's fault."
    wins_above: float = 0.0
    "A return that is a success, where the server gives no scores."


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds to wait."""

    answer: float = 30.0
    session: float = 300.0
    "For a free one."


class OpenEnvWorld:
    """Implements `agentrl.protocols.Environment`. An episode ends when the server says so, or when the model speaks
    without a call, where the server takes no words."""

    def __init__(
        self,
        *,
        url: str = "",
        start: Program | None = None,
        prompt: str = "",
        tasks: str = "",
        reading: Reading = Reading(),
        max_steps: int = 32,
        waits: Waits = Waits(),
    ) -> None:
        """url: of a server that is up. start: how to start one here. prompt: said before the first observation.

        tasks: a file of JSON lines in place of seeds. max_steps: decisions an episode.
        """
        if bool(url) == bool(start):
            raise ValueError(
                "needs one of url and start, such as url=http://127.0.0.1:8000 of a server that is up, or "
                "start.app=package.module:app of one to be started here."
            )
        if tasks and not Path(tasks).is_file():
            raise ValueError(f"has tasks {tasks!r}, which is no file; name one of JSON lines.")
        self.max_steps = max_steps
        self.step_deadline = waits.answer * 4
        self.reset_deadline = (start.within if start else 0.0) + waits.session + waits.answer * 3
        self._url, self._program = url, start
        self._prompt = prompt
        self._path = Path(tasks) if tasks else None
        self._reading, self._waits = reading, waits
        self._play: _Play | None = None

    def tasks(self, split: str) -> Iterable[Task]:
        return lines(self._path, split) if self._path else seeds(split)

    def tools(self) -> Sequence[ToolSpec]:
        """The server's; none before the first reset, since a server is asked for them."""
        return () if self._play is None else self._play.tools

    def demonstrate(self, task: Task, rng: random.Random) -> Iterable[Action]:
        """Calls at random whose arguments fit: the form of a call, for a warm start. A server knows no oracle."""
        while True:
            tool = rng.choice(self.tools())
            yield call(tool.name, **random_arguments(tool, rng))

    async def reset(self, task: Task) -> Observation:
        await self.close()
        server = await SERVERS.take(self._program) if self._program else None
        session = Session(server.url if server else self._url, self._waits.answer)
        play = self._play = _Play(session, Interface("tools"), (), server)
        try:
            play.interface = interface_of(await session.schema(), "act")
            shown, _, done = await session.reset(task.data.get("reset", {}), self._waits.session)
            if done:
                raise EnvironmentFault(f"the episode of {task.id} was over before its first action: {dict(shown)}.")
            play.tools = play.interface.tools or listed((await session.step(LIST_TOOLS))[0])
        except Refused as refused:
            raise await self._attributed(session.lose(refused)) from refused
        except EnvironmentFault as fault:
            raise await self._attributed(fault) from fault
        opening = "\n\n".join(text for text in (self._prompt, task.data.get("prompt", "")) if text)
        messages = _opened(self._messages(shown), opening)
        return Observation(messages, tuple(shown.get("images") or ()), shown.get("state_key"))

    async def step(self, action: Action) -> StepResult:
        play = self._playing()
        play.steps += 1
        try:
            if play.interface.kind == "decisions":
                return self._decided(play, *await play.session.step(decision(action)))
            return await self._called(play, action)
        except Refused as refused:
            raise await self._attributed(play.session.lose(refused)) from refused
        except EnvironmentFault as fault:
            raise await self._attributed(fault) from fault

    async def close(self) -> None:
        play, self._play = self._play, None
        if play is not None:
            await play.session.close()
            if play.server is not None:
                await SERVERS.give_back(play.server)

    async def _called(self, play: _Play, action: Action) -> StepResult:
        """Call by call: a server that knows no decisions counts each of them."""
        calls = action.tool_calls
        if not calls and self._reading.speech:
            calls = (ToolCall(play.tools[0].name, {self._reading.speech: action.text}),)
        answers: list[_Answer] = []
        for made in calls:
            answers.append(await self._use(play, made, spoken=not action.tool_calls))
            if answers[-1].done:
                break
        done = not answers or answers[-1].done
        reward = sum(answer.reward for answer in answers)
        play.total += reward
        cut = not done and play.steps >= self.max_steps
        return StepResult(
            Observation(tuple(message for answer in answers for message in answer.messages)),
            reward,
            {"success": float(done and play.total > self._reading.wins_above), "return": play.total}
            if done or cut
            else {},
            terminated=done,
            truncated=cut,
            policy_error="; ".join(answer.mistake for answer in answers if answer.mistake),
        )

    async def _use(self, play: _Play, made: ToolCall, *, spoken: bool) -> _Answer:
        def told(text: str, reward: float = 0.0, done: bool = False, mistake: str = "") -> _Answer:
            words = text[:TEXT_LIMIT]
            message = Message("user", words) if spoken else Message("tool", words, name=made.name, call_id=made.id)
            return _Answer((message,), reward, done, mistake[:TEXT_LIMIT])

        known = [tool.name for tool in play.tools]
        if made.name not in known:
            wrong = unknown_tool(made.name, known)
            return told(wrong, mistake=wrong)
        try:
            shown, reward, done = await play.session.step(play.interface.call(made))
        except Refused as refused:
            if refused.code != "VALIDATION_ERROR" and not any(
                piece in str(refused) for piece in self._reading.mistakes
            ):
                raise
            return told(str(refused), mistake=str(refused))
        if play.interface.kind == "fields":
            return told(in_words(shown, self._reading.show), reward, done)
        text, mistake, failed = answer(shown)
        if failed:
            raise play.session.lose(Refused("", failed))
        return told(text, reward, done, mistake)

    def _decided(self, play: _Play, shown: Any, reward: float, done: bool) -> StepResult:
        play.total += reward
        truncated = bool(shown.get("truncated"))
        cut = truncated or (not done and play.steps >= self.max_steps)
        scores = {str(name): float(value) for name, value in (shown.get("scores") or {}).items()}
        return StepResult(
            Observation(self._messages(shown), tuple(shown.get("images") or ()), shown.get("state_key")),
            reward,
            # An episode that ends at a limit of ours was not graded there: it is no success.
            scores or ({"success": 0.0} if cut else {}),
            terminated=done and not truncated,
            truncated=cut,
            policy_error=str(shown.get("policy_error", "")),
        )

    def _messages(self, shown: Any) -> tuple[Message, ...]:
        play = self._playing()
        if play.interface.kind == "decisions":
            return tuple(
                Message(told["role"], told["content"], name=told.get("name", ""), call_id=told.get("call_id", ""))
                for told in shown.get("messages", ())
            )
        text = in_words(shown, self._reading.show)[:TEXT_LIMIT]
        return (Message("user", text),) if text else ()

    def _playing(self) -> _Play:
        if self._play is None:
            raise EnvironmentFault("there is no episode to act in: call `reset` first.")
        return self._play

    async def _attributed(self, fault: EnvironmentFault) -> EnvironmentFault:
        """A server that was started here is not used again, and says how it ended."""
        server = self._play.server if self._play else None
        if server is None:
            return fault
        server.fit = False
        return server.ended(f"in an episode ({fault})") if await server.died(1.0) else server.fault(f"failed: {fault}")


def _opened(messages: tuple[Message, ...], opening: str) -> tuple[Message, ...]:
    """`opening` stands before what the user says first, in one message with it: templates want roles in turn."""
    if not opening:
        return messages
    at = next((place for place, message in enumerate(messages) if message.role == "user"), None)
    if at is None:
        return (*messages, Message("user", opening))
    return (*messages[:at], Message("user", f"{opening}\n\n{messages[at].content}"), *messages[at + 1 :])

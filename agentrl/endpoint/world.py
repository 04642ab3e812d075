"""The client of a session as an environment: its requests are what the policy observes, its verdict is the reward.

Whoever begins and ends the client is a subclass; what the policy is shown, and how its actions become answers, is here
once for an agent that a run starts and for one that comes by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from agentrl.endpoint.problems import Problem
from agentrl.endpoint.replies import Choice, Spoken
from agentrl.endpoint.session import Ending, Exchange, Session
from agentrl.errors import EnvironmentFault
from agentrl.protocols import Renderer
from agentrl.rollout.decisions import Decision
from agentrl.types import (
    Action,
    Completion,
    Finish,
    Message,
    Observation,
    SamplingParams,
    StepResult,
    Task,
    ToolCall,
    ToolSpec,
)

FULL = "the next prompt leaves no room for an answer, or the episode has had all its steps; it ends here."


class ClientWorld(ABC):
    """Implements `protocols.Environment` and `decisions.Client`. An instance serves one episode."""

    tells_mistakes = True
    "A malformed call goes to the client as the words that it is; what to do about it is the agent's part."
    patience: float = 120.0
    "Seconds in which the client has to ask again, or to end, once it was answered; kept in `heard`."

    session: Session

    _tools: tuple[ToolSpec, ...] = ()
    "On the class too: a subclass may have an `__init__` that does not call this one."

    def __init__(self) -> None:
        self._tools = ()
        self._exchange: Exchange
        self._shown = Observation(())
        self._place = 0
        "The step that the present request goes on with."
        self._steps = 0
        self._tokens: list[int] = []
        "Per step, of its context with its answer."
        self._decision: Decision | None = None
        self._renderer: Renderer | None = None

    @abstractmethod
    def tasks(self, split: str) -> Iterable[Task]: ...

    @abstractmethod
    async def come(self, task: Task) -> None:
        """Bring the client to its session."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def heard(self, wait: Callable[[], Awaitable[Exchange | Ending]]) -> Exchange | Ending:
        """What `wait` gives, which is the session's; raises `EnvironmentFault` where the client is gone or too late."""

    @property
    def step_deadline(self) -> float:
        return self.patience

    @property
    def reset_deadline(self) -> float:
        return self.patience

    def tools(self) -> Sequence[ToolSpec]:
        return self._tools

    async def reset(self, task: Task) -> Observation:
        await self.come(task)
        came = await self._next()
        if isinstance(came, Ending):
            raise EnvironmentFault(f"the agent of task {task.id!r} ended without asking the policy anything.")
        return self._show(came)

    async def step(self, action: Action) -> StepResult:
        exchange = self._exchange
        choice = self._choice(action)
        exchange.choices.append(choice)
        self.session.memory.keep(self._steps, exchange.digests, choice.message)
        self._steps += 1
        self._decision = None
        if len(exchange.choices) < exchange.request.n:
            # Another answer to the same words, beside this one.
            self._shown = replace(self._shown, follows=self._place)
            return StepResult(self._shown, policy_error=action.error)
        self.session.deliver(exchange)
        came = await self._next()
        if isinstance(came, Ending):
            return replace(self._result(came), terminated=True, policy_error=action.error)
        return StepResult(self._show(came), policy_error=action.error)

    async def grade(self) -> StepResult:
        """The episode ended before its client did, which is told so and may still say what it was worth."""
        self.session.refuse(Problem(400, FULL, code="context_length_exceeded", param="messages"))
        came = await self._next(self.session.ending)
        assert isinstance(came, Ending)
        return self._result(came)

    def sampling(self, given: SamplingParams, room: int) -> SamplingParams:
        """The run says how to sample; a client may only ask for less of it."""
        return replace(given, max_tokens=max(1, min(given.max_tokens, self._exchange.request.max_tokens or room, room)))

    def stopped(self, completion: Completion, renderer: Renderer) -> Completion:
        """What stands behind the client's stop string was never said: it is cut off, and nothing is added."""
        stops = self._exchange.request.stop
        tokens = completion.tokens

        def complete(count: int) -> bool:
            text = renderer.decode(tokens[:count])
            return any(stop in text for stop in stops)

        if not stops or not complete(len(tokens)):
            return completion
        end = bisect_left(range(len(tokens)), True, key=complete)
        return replace(
            completion,
            tokens=tokens[:end],
            logprobs=completion.logprobs[:end],
            versions=completion.versions[:end],
            top_logprobs=completion.top_logprobs[:end],
            finish=Finish.STOP,
        )

    def sampled(self, decision: Decision, renderer: Renderer) -> None:
        self._decision, self._renderer = decision, renderer

    async def _next(self, wait: Callable[[], Awaitable[Exchange | Ending]] | None = None) -> Exchange | Ending:
        came = await self.heard(wait or self.session.next)
        if isinstance(came, Ending) and came.fault:
            self.broke_off(came.fault)
        return came

    def broke_off(self, fault: str) -> None:
        """The client cannot play on."""
        raise EnvironmentFault(fault)

    def _show(self, exchange: Exchange) -> Observation:
        self._exchange, self._tools = exchange, exchange.request.tools
        self._place, known = self.session.memory.place(exchange.digests)
        follows = None if self._place == self._steps - 1 else self._place
        self._shown = Observation(exchange.request.messages[known:], follows=follows)
        return self._shown

    def _choice(self, action: Action) -> Choice:
        """The answer as the client is given it: what the tokens say, no more."""
        request, decision, renderer = self._exchange.request, self._decision, self._renderer
        calls: tuple[ToolCall, ...] = ()
        text = action.text
        if request.calls:
            calls = tuple(
                replace(call, id=call.id or f"call_{self._steps}_{place}")
                for place, call in enumerate(action.tool_calls)
            )
        elif action.tool_calls and decision is not None and renderer is not None:
            last = len(decision.tokens) - (int(decision.tokens[-1]) in renderer.stop_token_ids)
            text = renderer.decode(decision.tokens[:last])
        for stop in request.stop:
            text = text.partition(stop)[0]
        before = self._tokens[self._place] if decision and decision.context is not None else 0
        prompt = before + (len(decision.prompt) if decision else 0)
        sampled = len(decision.tokens) if decision else 0
        self._tokens.append(prompt + sampled)
        spoken: tuple[Spoken, ...] = ()
        if request.logprobs and decision is not None and renderer is not None:
            spoken = tuple(
                Spoken(renderer.decode(decision.tokens[place : place + 1]), float(logprob))
                for place, logprob in enumerate(decision.logprobs)
            )
        cut = decision is not None and decision.finish is Finish.LENGTH
        finish = "tool_calls" if calls else "length" if cut else "stop"
        message = Message("assistant", text, calls)
        return Choice(message, finish, action.reasoning, prompt, sampled, spoken)

    def _result(self, ending: Ending) -> StepResult:
        late = dict(enumerate(ending.step_rewards))
        if len(late) > self._steps:
            raise EnvironmentFault(f"{len(late)} step rewards were given for {self._steps} answers.")
        reward = ending.reward + late.pop(self._steps - 1, 0.0)
        return StepResult(Observation(()), reward, ending.scores, late=late)

"""What an episode asks of whoever plays it: the next decision, with the tokens that it is made of.

A decider renders, samples and reads; slots, deadlines, retries and blame are the episode's and the rollout engine's,
whoever decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Protocol, runtime_checkable

from agentrl.protocols import Environment, Renderer
from agentrl.rollout.limits import EpisodeLimits
from agentrl.types import (
    Action,
    Completion,
    Finish,
    Floats,
    Observation,
    SamplingParams,
    Source,
    Step,
    Task,
    TokenIds,
    ToolSpec,
    token_ids,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer of the policy. Who gives no tokens leaves the arrays empty: nothing is trained on it."""

    action: Action
    context: str | None
    "The step whose tokens the prompt extends; None where the context began anew."
    prompt: TokenIds
    "The prompt tokens that were added to the context."
    tokens: TokenIds
    logprobs: Floats
    versions: TokenIds
    finish: Finish
    scores: Mapping[str, float] = field(default_factory=dict)
    "What is kept of the decision beside the environment's scores."
    source: Source = Source.POLICY
    seen: TokenIds = field(default_factory=lambda: token_ids([]))
    "What the engine was given in place of `prompt`, where the policy was shown more than it trains on."


@dataclass(frozen=True, slots=True)
class Seat:
    """Whose decisions are asked for, and within what."""

    name: str
    "Id of the episode."
    session: str
    limits: EpisodeLimits
    max_context: int
    task: str
    group: str
    member: int
    run_seed: int = 0
    given: str = ""
    "What the policy is told in every context and is not trained with."
    shared: int = 0
    "Steps that the episode begins with and that were taken in another."
    top_logprobs: int = 0
    "Alternatives per sampled token to take the entropy of; 0 takes none."
    line: tuple[Action, ...] = ()
    "An expert's actions, which are written where the engine would sample; empty where the policy decides."

    def seed(self, index: int) -> int:
        """The sampler's, for step `index`."""
        return sampling_seed(self.run_seed, self.group, self.task, self.member, index)


class Decider(Protocol):
    """The decisions of one episode; keeps what was said so far."""

    def prepare(self, steps: Sequence[Step], observation: Observation, tools: Sequence[ToolSpec]) -> bool:
        """Make the prompt of step `len(steps)`. False where it leaves no room for an answer.

        `steps` are those taken so far, of which it may see the first ones for the first time (a fork). Raises
        `EnvironmentFault` where already the first prompt leaves no room.
        """
        ...

    async def decide(self) -> Decision:
        """Answer the prompt. Awaited in an engine slot and cut at a deadline; raises `InfrastructureFault`."""
        ...


@runtime_checkable
class Insider(Protocol):
    """A decider that knows the world from within: an agent without a model, such as an oracle."""

    def meet(self, environment: Environment, task: Task) -> None:
        """Called once, when the world stands where the episode begins."""
        ...


@runtime_checkable
class Client(Protocol):
    """A world whose words come from a client that says how it wants to be answered and is told what was sampled."""

    def sampling(self, given: SamplingParams, room: int) -> SamplingParams:
        """How to sample the next answer, which may have `room` tokens; `given` is what the run says."""
        ...

    def stopped(self, completion: Completion, renderer: Renderer) -> Completion:
        """`completion`, or its beginning where the client ends answers earlier than the model."""
        ...

    def sampled(self, decision: Decision, renderer: Renderer) -> None:
        """The tokens of the action that comes next."""
        ...


class Player(Protocol):
    """Who plays the episodes of a run."""

    @property
    def max_context(self) -> int:
        """Prompt and answer together, in tokens."""
        ...

    def sit(self, seat: Seat) -> Decider: ...

    async def forget(self, session: str) -> None:
        """An episode ended: drop what was kept for it."""
        ...


def sampling_seed(seed: int, group: str, task: str, member: int, index: int) -> int:
    """The sampler's seed for one step: 48 bits that depend on nothing but the place of the step in the run.

    Attempts are left out on purpose: a retry after a passing fault, or after a resume, repeats the same numbers.
    """
    place = "\x1f".join((str(seed), group, task, str(member), str(index)))
    return int.from_bytes(blake2b(place.encode(), digest_size=6).digest(), "big")


def told_when_cut(action: Action, finish: Finish, why: str) -> Action:
    """`action`; an answer in words that the token limit cut off is a mistake that the model is told about."""
    if finish is Finish.LENGTH and not action.tool_calls and not action.error:
        return replace(action, error=f"Your answer was cut off {why}. Answer more briefly.")
    return action

"""The data that everything else speaks: tasks, steps, trajectories, groups.

Standard library and numpy only. Token arrays are int32, log-probabilities float32 in nats. A `Step` holds only
the tokens that it added, so the deltas along `context` are exactly what the engine was given and returned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from agentrl.errors import InvalidDataError

TokenIds = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
JSON = Any
Role = Literal["system", "user", "assistant", "tool"]


class Status(StrEnum):
    """How a dispatched episode ended. Only the first three may train."""

    OK = "ok"
    TRUNCATED = "truncated"
    POLICY_ERROR = "policy_error"
    ENVIRONMENT_ERROR = "environment_error"
    INFRASTRUCTURE_ERROR = "infrastructure_error"
    CANCELLED = "cancelled"

    @property
    def trains(self) -> bool:
        return self in (Status.OK, Status.TRUNCATED, Status.POLICY_ERROR)


class Source(StrEnum):
    """Who produced a trajectory."""

    POLICY = "policy"
    REPLAY = "replay"
    EXPERT = "expert"
    GUIDED = "guided"
    TEACHER = "teacher"


class Finish(StrEnum):
    """Why the engine stopped sampling."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Task:
    """One problem of an environment, with its seed."""

    id: str
    "Stable and unique in its suite."
    env: str
    seed: int = 0
    data: Mapping[str, JSON] = field(default_factory=dict)
    "JSON only: a task travels between processes and lies in the ledger."
    split: str = "train"
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model sees it."""

    name: str
    description: str
    parameters: Mapping[str, JSON]
    "JSON schema of an object."

    def as_function(self) -> dict[str, JSON]:
        """In the form that chat APIs and chat templates take."""
        told = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": told}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the model wrote it; nothing is repaired, and nothing is checked against the tool yet."""

    name: str
    arguments: Mapping[str, JSON]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as chat APIs and chat templates have it."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    "Only where the role is assistant."
    name: str = ""
    "The tool that answered, where the role is tool."
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the environment shows before a decision: the new messages only, not the history."""

    messages: tuple[Message, ...]
    images: tuple[str, ...] = ()
    "As `agentrl.picture` makes them; in what is recorded, their content hashes (sha256, hex): `store/images.py`."
    state_key: str | None = None
    "The anchor: equal keys within a group are equal states. None where the environment has no key."
    follows: int | None = None
    """Index of the step whose conversation the messages go on with, -1 where they are a whole new one; None: the step
    before in time. Only a world whose client goes back in its own history says more than None."""


@dataclass(frozen=True, slots=True)
class Action:
    """What the environment is given, parsed from sampled tokens."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    error: str = ""
    "Not empty where the tokens could not be parsed: what was wrong, in words for the model."

    def message(self) -> Message:
        """What the next prompt shows of it; the reasoning is left out."""
        return Message("assistant", self.text, self.tool_calls)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came back from one action."""

    observation: Observation
    reward: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    "Named parts of the reward, for the log; they are not added to it."
    terminated: bool = False
    truncated: bool = False
    policy_error: str = ""
    "Not empty where the call was the model's mistake (unknown tool, wrong argument); the observation tells it."
    late: Mapping[int, float] = field(default_factory=dict)
    "Rewards of earlier steps, by their index, that are known only now; they are added to what those steps earned."


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample. There is no top-p and no top-k: they bias the importance ratio."""

    max_tokens: int
    temperature: float = 1.0
    "0 is greedy. Returned log-probabilities are those of the tempered distribution (of the plain one at 0)."
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    "The stop token that ends a completion is part of it."
    top_logprobs: int = 0
    "How many alternatives per token to report in `Completion.top_logprobs`."

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.temperature < 0:
            raise InvalidDataError(
                f"max_tokens is {self.max_tokens} and temperature {self.temperature}: "
                "at least 1 token and a temperature of 0 or more are needed."
            )


@dataclass(frozen=True, slots=True)
class Completion:
    """Sampled tokens with what the sampler knew of them. All arrays have one entry per token."""

    tokens: TokenIds
    logprobs: Floats
    "Nats, under the distribution that really sampled (temperature applied)."
    versions: TokenIds
    "Policy version behind the weights that sampled each token; one completion may span several."
    finish: Finish
    cached_tokens: int = 0
    "Prompt tokens whose keys and values were reused."
    top_logprobs: tuple[Mapping[int, float], ...] = ()
    "Per token: id to log-probability of the likeliest alternatives, where asked for; of the same distribution."

    def __post_init__(self) -> None:
        _check_aligned("completion", self.tokens, self.logprobs, self.versions)


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that a step took, by who took them; `started` is Unix time."""

    started: float = 0.0
    waiting: float = 0.0
    model: float = 0.0
    environment: float = 0.0
    reward: float = 0.0

    @property
    def total(self) -> float:
        return self.waiting + self.model + self.environment + self.reward


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One agent decision: what was observed, what the policy answered, what came back."""

    id: str
    "Unique in the run; branches that share a step share its id."
    index: int
    "0-based place in time."
    previous: str | None
    "The step before it in time."
    context: str | None
    "The step whose tokens its prompt extends; None where the context starts anew or was rewritten."
    prompt: TokenIds
    "The prompt tokens that this step added behind its context (the whole prompt where context is None)."
    tokens: TokenIds
    "What the policy sampled, stop token included."
    logprobs: Floats
    versions: TokenIds
    action: Action
    observation: Observation
    "What was shown before the decision."
    reward: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    terminated: bool = False
    truncated: bool = False
    error: str = ""
    "The policy error of this step, if any."
    finish: Finish = Finish.STOP
    timings: Timings = field(default_factory=Timings)
    source: Source = Source.POLICY
    """Who decided: the policy; a teacher that took this turn over; an expert whose action was given; or an earlier
    group (a replay), whose tokens are context here."""
    seen: TokenIds = field(default_factory=lambda: token_ids([]))
    "What the engine was given in place of `prompt`, where the policy was shown more than it trains on; else empty."
    told: str = ""
    "What the strategy added to the environment's words in `observation`."
    snapshot: JSON = None
    "The environment's state before the decision, where the strategy forks and the environment can be copied."

    def __post_init__(self) -> None:
        _check_aligned(f"step {self.id}", self.tokens, self.logprobs, self.versions)
        if not np.isfinite(self.reward):
            raise InvalidDataError(f"step {self.id} has reward {self.reward}; a reward is a finite number.")

    @property
    def anchor(self) -> str | None:
        """Key of the state in which it was decided; None where the environment names none."""
        return self.observation.state_key

    @property
    def trains(self) -> bool:
        """False where what it sampled is context only: a fork of an earlier group's trajectory begins with it."""
        return self.source is not Source.REPLAY


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """The steps of one episode, in order. Branches of one group share `Step` objects."""

    id: str
    task: Task
    group: str
    steps: tuple[Step, ...]
    status: Status
    source: Source = Source.POLICY
    forked_from: str | None = None
    "Id of the last step shared with the trajectory it was forked from."
    forks: int = 0
    "How often the template or context policy forced a new context where one was expected to extend."
    attempt: int = 0
    "How many earlier attempts of this episode ended in a fault."
    error: str = ""
    final: Observation | None = None
    "What was shown after the last action."
    given: str = ""
    "What the policy was told while it sampled its own steps and is not trained with: guidance, a reflection."

    @property
    def own(self) -> tuple[Step, ...]:
        """The steps that were sampled for this trajectory: all but those that it shares with the one it left."""
        shared = next((step.index + 1 for step in self.steps if step.id == self.forked_from), 0)
        return self.steps[shared:]

    @property
    def reward(self) -> float:
        """The undiscounted sum of the step rewards: the return that groups compare."""
        return float(sum(step.reward for step in self.steps))

    @property
    def success(self) -> bool:
        """True where the environment said so (`scores["success"]` of the last step), else a positive return.

        A return is the environment's alone: what reward models add to a step does not make a failure a success.
        """
        if not self.status.trains or not self.steps:
            return False
        last = self.steps[-1].scores
        if "success" in last:
            return bool(last["success"] > 0)
        return sum(step.scores.get("environment", step.reward) for step in self.steps) > 0

    @property
    def oldest_version(self) -> int:
        """Of the tokens that may be trained on."""
        return min((int(step.versions.min()) for step in self.steps if step.trains and step.versions.size), default=0)

    def context_of(self, step: Step) -> tuple[Step, ...]:
        """The steps whose tokens lead to `step`, oldest first, `step` included."""
        by_id = {s.id: s for s in self.steps}
        chain = [step]
        while chain[-1].context is not None:
            chain.append(by_id[chain[-1].context])
        return tuple(reversed(chain))

    def tokens_through(self, step: Step) -> TokenIds:
        """The ids that `step` trains on: the deltas along `context`, which the engine was given and returned.

        What was shown to the policy and is not trained with (`Step.seen`) is not among them.
        """
        parts = [part for s in self.context_of(step) for part in (s.prompt, s.tokens)]
        return np.concatenate(parts).astype(np.int32)


@dataclass(frozen=True, slots=True)
class GroupName:
    """What a group of a run is called: `g000012`, and `g000012r1`, `g000012r2` where its task was issued again."""

    ordinal: int
    "Place of its task among those that the sampler gave."
    again: int = 0
    "How often the task had been issued before."

    def __str__(self) -> str:
        return f"g{self.ordinal:06d}{f'r{self.again}' if self.again else ''}"

    @classmethod
    def read(cls, name: str) -> GroupName | None:
        """None for a name of another kind."""
        found = re.fullmatch(r"g(\d+)(?:r(\d+))?", name)
        return cls(int(found[1]), int(found[2] or 0)) if found else None


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The trajectories of one task: the unit of a baseline. Never split between updates."""

    id: str
    task: Task
    trajectories: tuple[Trajectory, ...]

    def steps(self) -> Iterator[Step]:
        """Each step once, also when branches share it."""
        seen: set[str] = set()
        for trajectory in self.trajectories:
            for step in trajectory.steps:
                if step.id not in seen:
                    seen.add(step.id)
                    yield step


@dataclass(frozen=True, slots=True)
class Settlement:
    """What reward models that compare the members of a group said of it."""

    members: tuple[str, ...]
    "Ids of the trajectories that were compared, sorted."
    scores: Mapping[str, Mapping[str, float]]
    "By the term's name, one number for every step, by the step's id: branches that share a step share its number."


def _check_aligned(owner: str, tokens: TokenIds, logprobs: Floats, versions: TokenIds) -> None:
    if not len(tokens) == len(logprobs) == len(versions):
        raise InvalidDataError(
            f"{owner} has {len(tokens)} tokens, {len(logprobs)} logprobs and {len(versions)} versions; "
            "the three arrays need one entry per sampled token."
        )


def token_ids(ids: Sequence[int] | npt.NDArray[Any]) -> TokenIds:
    return np.asarray(ids, dtype=np.int32)

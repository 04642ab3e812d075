"""The seams: what a part must offer so that another can be put in its place.

Anything that waits is async. A protocol names behaviour only; data lives in `agentrl.types`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from agentrl.types import (
    JSON,
    Action,
    Completion,
    Finish,
    Floats,
    Group,
    Message,
    Observation,
    SamplingParams,
    Step,
    StepResult,
    Task,
    TokenIds,
    ToolSpec,
    Trajectory,
)

if TYPE_CHECKING:
    import torch

    from agentrl.batch import Taught, TrainingBatch


@runtime_checkable
class Environment(Protocol):
    """One world. An instance serves one episode at a time; `tasks` needs no reset.

    `reset` and `step` raise `EnvironmentFault` (or anything else, which is taken for one) where the world broke;
    a mistake of the model is a `StepResult` with `policy_error` set. One that has `step_deadline` or `reset_deadline`
    (seconds) keeps it itself; one that has `grade()` says what an episode is worth that was ended from outside.
    """

    def tasks(self, split: str) -> Iterable[Task]: ...

    def tools(self) -> Sequence[ToolSpec]:
        """What the model may call in this episode; read after `reset`."""

    async def reset(self, task: Task) -> Observation: ...

    async def step(self, action: Action) -> StepResult: ...

    async def close(self) -> None:
        """Give back everything. May be called twice, and without a reset."""


@runtime_checkable
class Snapshots(Protocol):
    """An environment that can be copied in mid-episode."""

    async def snapshot(self) -> JSON: ...

    async def restore(self, snapshot: JSON) -> Observation: ...


@runtime_checkable
class HasOracle(Protocol):
    """An environment that knows a winning line of play."""

    def oracle(self, task: Task) -> Iterable[Action]:
        """The actions that win `task`, in order; lazily, so that they may depend on the world's state so far."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    tokens: TokenIds
    "The whole prompt."
    sampling: SamplingParams
    session: str = ""
    "Requests of one episode share it, so that an engine can keep their keys and values."
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineHealth:
    ok: bool
    detail: str = ""
    running: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class LearnerSide:
    """What a publisher may know of the learner."""

    module: Any
    "The trained module; an engine that samples from this very object shares its weights."
    probe: Callable[[TokenIds], Floats]
    "`Engine.score` under the learner's own weights: what a correct engine must agree with. Blocking."
    folder: Path
    "The run's folder."


class Engine(Protocol):
    """Who samples tokens. Cancelling a `generate` call ends the request; a dead engine raises `InfrastructureFault`."""

    trainable: bool
    "False where the engine cannot return token ids and log-probabilities (an OpenAI-compatible API)."
    max_context: int
    "Prompt and completion together, in tokens."

    @property
    def version(self) -> int:
        """Policy version of the weights in use."""

    async def start(self) -> None: ...

    async def generate(self, request: GenerateRequest) -> Completion: ...

    async def score(self, tokens: TokenIds) -> Floats:
        """Log-probability (nats, temperature 1) of each token given those before it; entry 0 is 0."""

    async def pause(self) -> None:
        """Hold new sampling; requests in flight survive."""

    async def resume(self) -> None: ...

    async def forget(self, session: str) -> None:
        """The episode ended: drop what was kept for it."""

    async def health(self) -> EngineHealth: ...

    async def close(self) -> None: ...

    def publisher(self, learner: LearnerSide) -> WeightPublisher:
        """How the learner's weights come here. Raises `TrainingError` where the engine cannot be trained."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as a server counted them; 0 where it does not count."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ChatReply:
    """One answer of a chat API."""

    action: Action
    finish: Finish
    usage: Usage


class ChatEngine(Protocol):
    """Who answers messages with an action, where no tokens are to be had: for evaluation only."""

    max_context: int
    "Prompt and answer together, in tokens."

    async def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        sampling: SamplingParams,
        response_format: Mapping[str, JSON] | None = None,
    ) -> ChatReply:
        """One answer; a malformed call is `Action.error`. Raises `InfrastructureFault` where the server fails.

        `response_format` is what the server itself keeps the answer to, as it is sent to an OpenAI-compatible API.
        """


class WeightPublisher(Protocol):
    """Brings the learner's weights to an engine and proves that they arrived."""

    async def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """After it returns, every new token is sampled from `tensors`. Raises `InfrastructureFault` if not verified."""


class Renderer(Protocol):
    """Messages and tools to token ids, and sampled ids to an action."""

    name: str
    stop_token_ids: tuple[int, ...]

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds:
        """A whole prompt, ready for the assistant's answer. Raises `RenderingError`."""

    def extend(self, context: TokenIds, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenIds | None:
        """The ids that follow `context` (everything sent and sampled so far) when `messages` are added.

        None where the template would rewrite what was sampled: the caller renders anew, which is a fork.
        """

    def parse(self, tokens: TokenIds, tools: Sequence[ToolSpec]) -> Action:
        """The action that sampled tokens stand for; what cannot be parsed becomes `Action.error`, never repaired."""

    def action_tokens(self, action: Action, tools: Sequence[ToolSpec] = ()) -> TokenIds:
        """The ids with which the policy would express `action`, stop token included (warm starts, oracles).

        Forms that write values by position need `tools` to know their order.
        """

    def decode(self, tokens: TokenIds) -> str: ...


class ContextPolicy(Protocol):
    """What the next prompt shows of the episode so far."""

    def rewrite(self, steps: Sequence[Step], observation: Observation) -> tuple[Message, ...] | None:
        """None to append `observation` to the tokens so far; otherwise all messages of a fresh prompt."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What a strategy asks of a run, beside episodes."""

    group: int = 1
    "Members of a group, at least."
    forks: bool = False
    "It forks: every step keeps a snapshot of an environment that has them."
    experts: bool = False
    "Some of its members are an expert's: their tokens are no sample of the policy."
    top_logprobs: int = 0
    'Alternatives of each sampled token; where above 0, every step has the score "entropy".'


class Episodes(Protocol):
    """Who plays episodes, within limits and deadlines, and keeps their records."""

    async def episode(self, task: Task, member: int) -> Trajectory:
        """Play one whole episode; always returns a record, whatever happened."""


class Rollout(Episodes, Protocol):
    """What a strategy may do in one group. A member that an earlier life of the run recorded is given back as it is."""

    async def fork(self, parent: Trajectory, at: int, member: int, *, told: str = "", given: str = "") -> Trajectory:
        """Play on from before step `at` of `parent`; the steps before it are shared token for token.

        `told` is added to what is shown there and trains with it. `given` is shown to the policy as well and left out
        of what is trained on. The world gets there by snapshot or by a replay that must repeat what was recorded; one
        that does not is an `EnvironmentFault` in the record. Raises `InvalidDataError` where `parent` has no such step.
        """

    async def ask(self, messages: Sequence[Message], member: int) -> str:
        """What the policy answers outside of any episode; nothing of it is trained on. Raises `InfrastructureFault`."""

    async def winning_line(self, task: Task) -> Sequence[Action]:
        """The solution of `task` that the environment's oracle plays.

        Raises `ConfigError` where the environment has no oracle, `EnvironmentFault` where it fails.
        """

    async def demonstrate(self, task: Task, member: int, actions: Sequence[Action]) -> Trajectory:
        """Play `actions` as an expert's, in the policy's own prompts and tokens. Truncated where they end too early."""

    async def recall(self, trajectory: str) -> Trajectory:
        """A trajectory of an earlier group, by its id. A fork of it begins with steps that are context only.

        Raises `StoreError` where the run has none of that name.
        """

    def dice(self, place: str) -> random.Random:
        """Chance that depends on the run's seed, the group and `place` only, so that a resumed group repeats it."""


class RolloutStrategy(Protocol):
    """How the trajectories of a group come about: at most `size` of them, each member number once.

    One that forks says so: see `HasDemands`.
    """

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        """The trajectories of one group."""


@runtime_checkable
class HasDemands(Protocol):
    """A strategy that asks for more than episodes."""

    @property
    def demands(self) -> Demands: ...


@runtime_checkable
class DrawsTasks(Protocol):
    """A strategy that begins groups of its own between those of the sampler, from what it saw in earlier batches."""

    def around(self, sampler: TaskSampler) -> TaskSampler:
        """Gives `sampler`'s tasks and the strategy's; its state holds both memories."""


class RewardModel(Protocol):
    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        """One number per step, added to the environment's. Raises `InfrastructureFault`, never returns a made-up 0."""


@runtime_checkable
class GroupRewardModel(Protocol):
    """Scores steps by what the whole group shows; asked once, when the group is complete, after every `RewardModel`."""

    async def score_group(self, group: Group) -> Mapping[str, float]:
        """One number for every step of the group, by its id. Raises `InfrastructureFault`, as a `RewardModel` does."""


@runtime_checkable
class TrainableReward(Protocol):
    """A reward model that learns beside the policy, and is checkpointed with it. Blocking; others score meanwhile."""

    @property
    def trains(self) -> bool: ...

    def fit(self, groups: Sequence[Group]) -> Mapping[str, float]:
        """Learn from the groups of one update; numbers for the log."""

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


@runtime_checkable
class Metered(Protocol):
    """A part that counts what it does."""

    def take_metrics(self) -> Mapping[str, float]:
        """Since the last call; what is counted from the run's beginning ends in `_total`."""

    def account(self) -> str:
        """What the whole run cost so far, in a line for a person."""


@runtime_checkable
class Stateful(Protocol):
    """A part with a memory. Its state is JSON and is checkpointed with the run."""

    def state(self) -> JSON: ...

    def restore(self, state: JSON) -> None: ...


class TaskSampler(Protocol):
    """Which tasks come next. Its state is JSON and is checkpointed."""

    def next(self, count: int) -> Sequence[Task]: ...

    def observe(self, group: Group) -> None:
        """May come late and out of order."""

    def state(self) -> JSON: ...

    def restore(self, state: JSON) -> None: ...


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What one call of `Learner.update` did."""

    updated: bool
    "False where the batch had no signal or was not finite: no optimiser step was taken, and `reason` says why."
    reason: str
    metrics: Mapping[str, float]
    taught: Taught | None = None


class Learner(Protocol):
    """Owns the trained weights and the optimiser. Blocking: the loop calls it in a thread."""

    @property
    def version(self) -> int:
        """Number of updates so far."""

    def update(self, batch: TrainingBatch) -> UpdateReport:
        """The optimiser updates of one batch. `metrics["updates"]` says how many were made."""

    def named_tensors(self) -> Mapping[str, torch.Tensor]:
        """The policy's weights by their `transformers` names, adapters merged, ready to publish."""

    def save(self, folder: Path) -> None:
        """Weights loadable with `from_pretrained`, optimiser and random state beside them."""

    def load(self, folder: Path) -> None: ...


class Tracker(Protocol):
    """Where metrics go. A tracker that fails is reported once and then left out; it never stops a run."""

    def start(self, run: str, config: Mapping[str, Any]) -> None: ...

    def log(self, update: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...

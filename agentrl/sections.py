"""What a recipe may say: its sections, their keys with defaults and ranges, and what they must agree on.

An unknown key is an error, never ignored; a section that names a part carries the part's own options as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from agentrl.environment import RunsIn
from agentrl.errors import ConfigError

Positive: TypeAlias = Annotated[int, Field(ge=1)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Rate: TypeAlias = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A section with fixed keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Part(BaseModel):
    """A part chosen by name, with its own options: `{name = "window", size = 4}`, or just `"append"`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, use_attribute_docstrings=True)

    name: str
    """Which part; `agentrl list KIND` shows all."""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class World(Part):
    """The world that is trained in."""

    runs_in: RunsIn | None = None
    """Where its methods run, while training: loop, thread or process. Unset keeps what its class says."""


class Reward(Part):
    """A reward model beside the environment's own reward."""

    weight: float = 1.0
    """What its score is multiplied with before it is added to the step's reward."""


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


PartLike: TypeAlias = Annotated[Part, BeforeValidator(_named)]
WorldLike: TypeAlias = Annotated[World, BeforeValidator(_named)]


class Model(Section):
    """The policy: a folder or known name with weights, or a tiny one built from scratch."""

    path: str | None = None
    """A folder that `from_pretrained` reads, or a name that `agentrl models list` shows."""
    name: Literal["tiny"] | None = None
    """The preset "tiny": a small Llama with a word-level tokenizer, random weights, no download."""
    hidden: Positive = 64
    """Width of "tiny". A multiple of heads."""
    layers: Positive = 2
    """Layers of "tiny"."""
    heads: Positive = 2
    """Attention heads of "tiny"; hidden / heads is even (32 or 64 for vLLM on CPU)."""
    teacher: str | None = None
    """Weights that a method with a teacher learns from: a folder or known name, of the same tokenizer."""
    renderer: str = "auto"
    """How messages become tokens; "auto" asks the tokenizer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights. Log-probabilities are computed in float32 either way."""
    device: str = "auto"
    """"auto", "cpu", "cuda" or "cuda:1"; "auto" takes a GPU where there is one."""
    lora_rank: Count = 0
    """Rank of the adapters that are trained; 0 trains all weights."""
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the adapters: they are multiplied with alpha / rank."""


class Rollout(Section):
    """How groups of trajectories are sampled."""

    tasks_per_batch: Positive = 8
    """Groups in a batch."""
    group_size: Positive = 8
    """Trajectories per task."""
    minimum_group: Positive = 2
    """A group that faults have left smaller than this is dropped. At most group_size."""
    max_steps: Positive | None = None
    """Actions per episode; unset takes the environment's own limit."""
    max_tokens: Positive = 128
    """Sampled tokens per step, at most."""
    max_context: Positive = 2048
    """Tokens of prompt and completion together. Above max_tokens."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of sampling while training; the ratio is taken at the same temperature."""
    max_staleness: Count = 0
    """Policy versions that a sample may lag behind: 0 is on-policy, k is asynchronous."""
    concurrency: Positive = 64
    """Requests at the engine at once."""
    environments: Positive = 64
    """Environments open at once."""
    episode_deadline: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that one episode may take, waiting included."""
    retries: Count = 2
    """Fresh attempts of an episode that ended in a fault, before it is dropped."""
    strategy: PartLike = Part(name="independent")
    """How the trajectories of a group come about."""
    context: PartLike = Part(name="append")
    """What the next prompt shows of the episode so far."""
    sampler: PartLike = Part(name="sequential")
    """Which tasks come next."""


class Training(Section):
    """The optimizer and how long it works."""

    batches: Positive = 100
    """Batches of groups to train on."""
    minibatches: Positive = 1
    """Updates per batch, each on whole groups. At most tasks_per_batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Of AdamW, after the warm-up."""
    weight_decay: Rate = 0.0
    """Of AdamW, decoupled."""
    warmup_updates: Count = 0
    """Updates over which the learning rate rises linearly."""
    gradient_clip: Rate = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    micro_batch_tokens: Positive = 8192
    """Tokens in one forward and backward pass; lower it where memory is short, the gradient stays the same."""
    threads: Count = 0
    """CPU threads of the learner; 0 leaves the choice to torch."""
    checkpoint_every: Positive = 10
    """Batches between checkpoints; the last one is always kept."""
    keep_checkpoints: Positive = 2
    """How many checkpoints stay on disk, at least one."""


class WarmStart(Section):
    """Supervised training on demonstrations before the first batch."""

    demonstrations: Positive = 1000
    """Episodes to learn from, played by the environment's demonstrator on training tasks."""
    recorded: str | None = None
    """The folder of a run, an evaluation or of what was served: learn from its successes, not from the demonstrator."""
    epochs: Positive = 1
    """Passes over the demonstrations."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of AdamW in the warm start."""
    batch: Positive = 32
    """Trajectories per update."""


class Experience(Section):
    """Learning without weights: a language model edits a list of experiences that every prompt shows."""

    base_url: str | None = None
    """Up to and with "/v1" of an OpenAI-compatible API that edits the list; unset, the policy's own engine does."""
    model: str = ""
    """The model there."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds its key; a server on this machine needs none."""
    max_tokens: Positive = 1024
    """Of one of its replies."""
    limit: Positive = 16
    """Experiences, at most."""
    longest: Positive = 300
    """Characters of an experience, and of each message of the episodes that are compared."""
    tries: Positive = 3
    """Questions about one group whose replies cannot be read, before the group is passed over."""


class Evaluation(Section):
    """Success on held-out tasks, before and after and on the way."""

    tasks: Count = 64
    """How many held-out tasks, the first of the split; 0 does not evaluate."""
    attempts: Positive = 1
    """Episodes per task and temperature."""
    every: Count = 0
    """Batches between evaluations; 0 evaluates before and after only."""
    temperatures: Annotated[tuple[Rate, ...], Field(min_length=1)] = (1.0, 0.0)
    """Each is evaluated by itself; 0 is greedy."""
    split: str = "test"
    """The environment's split; it shares no task with "train"."""


class Report(Section):
    """Where metrics go, beside metrics.jsonl."""

    trackers: tuple[PartLike, ...] = ()
    """Trackers by name, such as "tensorboard" or {name = "wandb", project = "desk"}."""


class Config(Section):
    """A run."""

    name: str = ""
    """Of the run and of its folder; unset takes the file's name."""
    seed: int = 0
    """Of tasks, sampling and initial weights."""
    plugins: tuple[str, ...] = ()
    """Plugins beside the installed ones: path.py or a.module."""
    environment: WorldLike
    """The world, and its options."""
    model: Model
    engine: PartLike = Part(name="transformers")
    """Who samples tokens, and its options."""
    rollout: Rollout = Rollout()
    method: PartLike = Part(name="grpo")
    """Credit, loss and aggregation by one name, and their options."""
    rewards: tuple[Reward, ...] = ()
    """Reward models that score beside the environment; none by default."""
    training: Training = Training()
    warm_start: WarmStart | None = None
    experience: Experience | None = None
    """Experiences learn in place of the weights; weights learn where this is left out."""
    evaluation: Evaluation = Evaluation()
    report: Report = Report()

    @model_validator(mode="after")
    def _agree(self) -> Config:
        found = conflicts(self)
        if found:
            raise ValueError("\n".join(found))
        return self

    def parts(self) -> tuple[tuple[str, str, Part], ...]:
        """Every part that the recipe names: its place in the file, its kind, itself."""
        named = [
            ("[environment]", "environments", self.environment),
            ("[engine]", "engines", self.engine),
            ("[rollout] strategy", "strategies", self.rollout.strategy),
            ("[rollout] context", "context_policies", self.rollout.context),
            ("[rollout] sampler", "samplers", self.rollout.sampler),
            ("[method]", "methods", self.method),
        ]
        named += [("[[rewards]]", "reward_models", reward) for reward in self.rewards]
        named += [("[report] trackers", "trackers", tracker) for tracker in self.report.trackers]
        return tuple(named)


def conflicts(config: Config) -> list[str]:
    """What no single key is to blame for, one line each."""
    model, rollout, training = config.model, config.rollout, config.training
    found = []
    if (model.path is None) == (model.name is None):
        said = "neither" if model.path is None else "both"
        found.append(f'[model] has {said} of path and name; give path = "..." or name = "tiny".')
    if model.name == "tiny" and (model.hidden % model.heads or (model.hidden // model.heads) % 2):
        found.append(
            f"[model] hidden = {model.hidden} with heads = {model.heads}: "
            "hidden must be a multiple of heads, and hidden / heads even."
        )
    shape = {key: getattr(model, key) for key in ("hidden", "layers", "heads")}
    chosen = [key for key, value in shape.items() if value != Model.model_fields[key].default]
    if model.path is not None and chosen:
        found.append(f'[model] {", ".join(chosen)} belong to name = "tiny"; a model with a path brings its own.')
    if config.experience is not None and config.experience.base_url and not config.experience.model:
        found.append(f"[experience] base_url = {config.experience.base_url!r} needs the name of a model there.")
    if rollout.minimum_group > rollout.group_size:
        found.append(
            f"[rollout] minimum_group = {rollout.minimum_group} is above group_size = {rollout.group_size}: "
            "every group would be dropped."
        )
    if rollout.max_tokens >= rollout.max_context:
        found.append(
            f"[rollout] max_tokens = {rollout.max_tokens} leaves no room for a prompt in "
            f"max_context = {rollout.max_context}; it must be below."
        )
    if training.minibatches > rollout.tasks_per_batch:
        found.append(
            f"[training] minibatches = {training.minibatches} is above [rollout] tasks_per_batch = "
            f"{rollout.tasks_per_batch}: a group is never split between updates."
        )
    return found


def term_names(rewards: Sequence[Reward]) -> list[str]:
    """The names that their scores carry: the second of a name is called `name_2`. Raises `ConfigError`."""
    names: list[str] = []
    for reward in rewards:
        if reward.name == "success":
            raise ConfigError("[[rewards]] name = 'success': the environment's word on success stands under that name.")
        numbered = (f"{reward.name}_{number}" for number in count(2))
        names.append(next(name for name in chain([reward.name], numbered) if name not in names))
    return names

"""The hooks that a plugin may implement: one registration hook per kind of part, and the events of a run.

Registration hooks are called once, at start; nothing here is called per token or per step. Hooks are synchronous.
A plugin is a module (or any object) with functions of these names; `@agentrl.hookimpl` marks them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from agentrl.batch import TrainingBatch
    from agentrl.plugins import Lazy
    from agentrl.protocols import UpdateReport
    from agentrl.types import Group, Trajectory

    Factories = Mapping[str, Callable[..., Any] | Lazy]

hookspec = pluggy.HookspecMarker("agentrl")
hookimpl = pluggy.HookimplMarker("agentrl")
"Marks a function of a plugin as one of the hooks below, by its name; found where the plugin registers, at start."

KINDS: Mapping[str, str] = {
    "environments": "a world to act in: class or factory of an `Env` or of `protocols.Environment`",
    "suites": "held-out tasks with limits and a score, to be measured on",
    "tools": "a typed function that environments can offer to the model",
    "reward_models": "scores the steps of a trajectory, beside the environment",
    "credit_rules": "turns rewards into advantages",
    "losses": "turns log-probabilities and advantages into a loss per token",
    "methods": "a named choice of credit rule, loss and aggregation",
    "strategies": "how the trajectories of one group are rolled out",
    "context_policies": "what the next prompt shows of the episode so far",
    "samplers": "which tasks come next",
    "engines": "who samples tokens",
    "renderers": "messages to token ids and back",
    "sandboxes": "runs code or commands with limits",
    "trackers": "where metrics go",
}
"""Every kind of part; the hook of kind `x` is `agentrl_x`."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What the events say about the run."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    "The resolved recipe, as nested plain values."
    update: int = 0
    "Updates done when the run (re)started; above 0 where a killed run continues."


class Registration:
    """One hook per kind. Each returns `{name: factory}`; a factory may be `agentrl.Lazy`, imported on first use."""

    @hookspec
    def agentrl_environments(self) -> Factories:
        """Environments: the class itself, or a callable that builds one. Keyword-only options become recipe keys."""
        raise NotImplementedError

    @hookspec
    def agentrl_suites(self) -> Factories:
        """Factories of `agentrl.Suite`, for `agentrl eval`. Keyword-only parameters become options."""
        raise NotImplementedError

    @hookspec
    def agentrl_tools(self) -> Factories:
        """Tools: typed functions with a docstring."""
        raise NotImplementedError

    @hookspec
    def agentrl_reward_models(self) -> Factories:
        """Factories of `protocols.RewardModel`."""
        raise NotImplementedError

    @hookspec
    def agentrl_credit_rules(self) -> Factories:
        """Credit rules, as `agentrl.credit` describes them."""
        raise NotImplementedError

    @hookspec
    def agentrl_losses(self) -> Factories:
        """Objectives, as `agentrl.losses.objective` describes them."""
        raise NotImplementedError

    @hookspec
    def agentrl_methods(self) -> Factories:
        """Factories of `agentrl.method.Method`."""
        raise NotImplementedError

    @hookspec
    def agentrl_strategies(self) -> Factories:
        """Factories of `protocols.RolloutStrategy`."""
        raise NotImplementedError

    @hookspec
    def agentrl_context_policies(self) -> Factories:
        """Factories of `protocols.ContextPolicy`."""
        raise NotImplementedError

    @hookspec
    def agentrl_samplers(self) -> Factories:
        """Factories of `protocols.TaskSampler`."""
        raise NotImplementedError

    @hookspec
    def agentrl_engines(self) -> Factories:
        """Factories of `protocols.Engine`."""
        raise NotImplementedError

    @hookspec
    def agentrl_renderers(self) -> Factories:
        """Factories of `protocols.Renderer`: called with the tokenizer."""
        raise NotImplementedError

    @hookspec
    def agentrl_sandboxes(self) -> Factories:
        """Factories of sandboxes."""
        raise NotImplementedError

    @hookspec
    def agentrl_trackers(self) -> Factories:
        """Factories of `protocols.Tracker`."""
        raise NotImplementedError


class Events:
    """What happens in a run. An event hook may look and log; only `agentrl_keep_group` decides anything."""

    @hookspec
    def agentrl_run_started(self, run: RunInfo) -> None:
        """Everything is built; nothing has been sampled yet."""

    @hookspec
    def agentrl_trajectory_finished(self, trajectory: Trajectory) -> None:
        """An episode ended in a record that may train."""

    @hookspec
    def agentrl_keep_group(self, group: Group) -> bool | None:
        """False drops the group before credit; None and True leave it. Any plugin's False decides."""

    @hookspec
    def agentrl_before_update(self, batch: TrainingBatch) -> None:
        """The batch is cut and credited."""

    @hookspec
    def agentrl_after_update(self, report: UpdateReport) -> None:
        """The optimizer stepped, or did not: see `report.updated`."""

    @hookspec
    def agentrl_checkpoint(self, folder: Path, update: int) -> None:
        """A checkpoint is complete on disk in `folder`."""

    @hookspec
    def agentrl_failure(self, trajectory: Trajectory) -> None:
        """An episode ended in a fault after its retries; it is not scored and does not train."""


HOOK_NAMES: frozenset[str] = frozenset(
    name for spec in (Registration, Events) for name in vars(spec) if name.startswith("agentrl_")
)

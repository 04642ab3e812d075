"""The reward models of a run: made as the recipe says, fitted beside the policy, saved with it, and accounted for.

What a model learned belongs to the checkpoint of the policy that it was fitted beside, so a resumed run scores as the
killed one would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from agentrl.plugins import Host
from agentrl.protocols import Engine, Metered, TrainableReward
from agentrl.rollout.rewarding import RewardTerm
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.policy import Policy
from agentrl.sections import Reward, term_names
from agentrl.types import Group

FOLDER = "rewards"
"In a checkpoint: a folder for each model that learns, by its term's name."


class RewardModels:
    """The terms of a run, as its loop needs them. `fit`, `save` and `load` block."""

    def __init__(self, terms: Sequence[RewardTerm] = ()) -> None:
        self.terms = tuple(terms)
        models = [(term.name, term.model) for term in self.terms]
        self._learning = [(name, m) for name, m in models if isinstance(m, TrainableReward) and m.trains]
        self._metered = [(name, m) for name, m in models if isinstance(m, Metered)]

    @property
    def learns(self) -> bool:
        return bool(self._learning)

    def fit(self, groups: Sequence[Group]) -> dict[str, float]:
        """One fit of every model that learns, on the groups of an update; `reward_TERM_KEY` for the log."""
        return {
            f"reward_{name}_{key}": value for name, model in self._learning for key, value in model.fit(groups).items()
        }

    def save(self, checkpoint: Path) -> None:
        """Beside a learner's checkpoint, before the ledger's head names the folder. Raises `StoreError`."""
        for name, model in self._learning:
            model.save(checkpoint / FOLDER / name)

    def load(self, checkpoint: Path) -> None:
        """Raises `StoreError` where the checkpoint has no such model."""
        for name, model in self._learning:
            model.load(checkpoint / FOLDER / name)

    def take_metrics(self) -> dict[str, float]:
        """What the models counted since the last call, as `reward_TERM_KEY`."""
        return {
            f"reward_{name}_{key}": value
            for name, model in self._metered
            for key, value in model.take_metrics().items()
        }

    def accounts(self) -> list[str]:
        """What each model cost the whole run, a line each."""
        return [f"{name}: {model.account()}" for name, model in self._metered]


def open_rewards(blueprint: Blueprint, engine: Engine, policy: Policy, stack: AsyncExitStack) -> RewardModels:
    """The recipe's reward models, closed by the stack."""
    given: dict[str, Any] = {
        "engine": engine,
        "renderer": policy.renderer,
        "folder": blueprint.folder.path,
        "model_path": policy.model_path,
        "device": policy.device,
    }
    return RewardModels(make_terms(blueprint.host, blueprint.config.rewards, given, stack))


def make_terms(
    host: Host, rewards: Sequence[Reward], given: Mapping[str, Any], stack: AsyncExitStack
) -> list[RewardTerm]:
    """Reward models under the names that their scores carry, closed by the stack."""
    terms = []
    for reward, name in zip(rewards, term_names(rewards), strict=True):
        model = host.create("reward_models", reward.name, reward.options, given=given, where="[[rewards]]")
        if hasattr(model, "close"):
            stack.push_async_callback(model.close)
        terms.append(RewardTerm(name, model, reward.weight))
    return terms

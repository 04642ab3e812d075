"""Who sampled a folder's episodes: its tokenizer, its renderer, what its prompts showed, and what a reward asks of it.

Rule: a folder is read as it was written; another model or renderer is named by who asks.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from agentrl.errors import ConfigError
from agentrl.models import load_tokenizer
from agentrl.options import takes
from agentrl.protocols import ContextPolicy, Renderer
from agentrl.replay.source import Recorded
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.policies import Weights, find_policy
from agentrl.sections import Reward


def sampler_of(recorded: Recorded, model: str | None = None) -> Weights:
    """Whose weights the tokens come from; `model`, as of `agentrl eval -m`, stands in for what the folder says.

    Raises `ConfigError` where it gives no tokens, or is not there any more.
    """
    name = model or recorded.policy
    policy = find_policy(name, recorded.host)
    if not isinstance(policy, Weights):
        raise ConfigError(f"{name!r} has no tokenizer here, so nothing is rendered; say whose with --model.")
    return policy


def renderer_of(recorded: Recorded, name: str | None = None, model: str | None = None) -> Renderer:
    """The one that the episodes were rendered with, or the one called `name`, on the tokenizer of `model`."""
    weights = sampler_of(recorded, model)
    renderer: Renderer = recorded.host.factory("renderers", name or weights.renderer)(load_tokenizer(weights.path))
    return renderer


def context_of(recorded: Recorded, model: str | None = None) -> ContextPolicy:
    config = recorded.config
    part = sampler_of(recorded, model).context if config is None else config.rollout.context
    policy: ContextPolicy = recorded.host.create("context_policies", part.name, part.options, where="[rollout] context")
    return policy


async def given_for(recorded: Recorded, reward: Reward, stack: AsyncExitStack) -> dict[str, Any]:
    """What a run would give the reward model: of the policy only what it asks for, started where it is an engine."""
    factory = recorded.host.factory("reward_models", reward.name)
    found: dict[str, Any] = {"folder": recorded.folder}
    if not any(takes(factory, name) for name in ("engine", "renderer", "model_path", "device")):
        return found
    import torch

    weights = sampler_of(recorded)
    found |= {"renderer": renderer_of(recorded), "model_path": weights.path}
    found["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    if takes(factory, "engine"):
        player = await weights.open(stack, recorded.folder)
        if not isinstance(player, TokenPlayer):
            raise ConfigError(
                f"{recorded.policy} shows its policy experiences, so it cannot be asked for a reward. Take a reward "
                "model that needs no engine."
            )
        found["engine"] = player.engine
    return found

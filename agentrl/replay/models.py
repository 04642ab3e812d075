"""Who sampled a folder's episodes: its tokenizer, its renderer and what its prompts showed.

Rule: a folder is read as it was written; another model or renderer is named by who asks.
"""

from __future__ import annotations

from pathlib import Path

from agentrl.errors import ConfigError
from agentrl.models import load_tokenizer, resolve
from agentrl.protocols import ContextPolicy, Renderer
from agentrl.replay.source import Recorded
from agentrl.rollout.context import Append
from agentrl.runs.folder import RunFolder


def renderer_of(recorded: Recorded, name: str | None = None, model: str | None = None) -> Renderer:
    """The one that the episodes were rendered with, or the one called `name`, on the tokenizer of `model`.

    Raises `ConfigError` where neither the folder nor the caller says whose tokenizer it was.
    """
    weights = weights_of(recorded) if model is None else resolve(model)
    chosen = name or ("auto" if recorded.config is None else recorded.config.model.renderer)
    renderer: Renderer = recorded.host.factory("renderers", chosen)(load_tokenizer(weights))
    return renderer


def context_of(recorded: Recorded) -> ContextPolicy:
    if recorded.config is None:
        return Append()
    part = recorded.config.rollout.context
    policy: ContextPolicy = recorded.host.create("context_policies", part.name, part.options, where="[rollout] context")
    return policy


def weights_of(recorded: Recorded) -> Path:
    """The newest weights of a run: the last checkpoint's, else those that it started from. Raises `ConfigError`."""
    config = recorded.recipe()
    run = RunFolder(recorded.folder)
    checkpoints = sorted((run.path / "checkpoints").glob("batch-*/model"))
    found = [path for path in (*reversed(checkpoints), run.warm_model, run.blank_model) if path.is_dir()]
    if found:
        return found[0]
    if config.model.path is None:
        raise ConfigError(f"{recorded.folder} holds no weights and its recipe names none; say whose with --model.")
    return resolve(config.model.path)

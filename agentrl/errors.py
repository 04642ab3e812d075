"""Every error that agentrl raises on purpose.

A message says what happened with its values, what was allowed, and what to do. Each class stands beside the
standard class that a caller would have caught.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AgentRLError(Exception):
    """The root: `except AgentRLError` catches what this library raises, and nothing else."""


class ConfigError(AgentRLError, ValueError):
    """A recipe, a key or a command line that cannot be run as written."""


class UnknownNameError(ConfigError, LookupError):
    """A name that no plugin registered."""


class PluginError(AgentRLError, RuntimeError):
    """A plugin that registers wrongly: two of one name, an unknown hook, a factory that is not callable."""


class MissingDependencyError(AgentRLError, ImportError):
    """An optional package is not installed; the message holds the command that installs it."""


class InvalidDataError(AgentRLError, ValueError):
    """Data that breaks an invariant of `agentrl.types`: misaligned arrays, a torn record, a NaN reward."""


class PolicyError(AgentRLError, ValueError):
    """The model's own mistake (malformed call, unknown tool). It is told to the model and it trains."""


class EnvironmentFault(AgentRLError, RuntimeError):
    """The environment raised, returned nonsense, or ran past its deadline. Retried, then dropped; never scored."""


class InfrastructureFault(AgentRLError, RuntimeError):
    """An engine, a judge, a sandbox or a worker failed. Retried, then dropped; never an observation, never a zero."""


class RenderingError(AgentRLError, ValueError):
    """Messages that cannot become tokens, or a template that breaks the prefix property."""


class StoreError(AgentRLError, OSError):
    """The run folder cannot be read or written: full disk, torn payload, another process holds it."""


class UnknownFolderError(StoreError, ConfigError):
    """A folder was named that is no run and no evaluation: a word of a command line, not a broken disk."""


class TrainingError(AgentRLError, RuntimeError):
    """Training cannot go on: no signal, non-finite losses in a row, an engine that returns no tokens."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""

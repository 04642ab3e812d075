"""Tasksets written for verifiers: their prompts, their rewards, their rollouts, our policy.

A harness of theirs is a top-level package with one class: this one, by the id `agentrl_verifiers`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ChatHarness"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Where it is asked for, verifiers is installed; where plugins are found, it is not.
    from agentrl_verifiers.chat import ChatHarness

    return ChatHarness

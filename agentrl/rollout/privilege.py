"""Prompts with privileged text, for a teacher that reads what the policy said knowing more than the policy did.

Rule: only prompts change. Sampled tokens and everything that followed a prompt stay the recorded ids, and a prompt that
cannot be rendered again as it was is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agentrl.errors import InvalidDataError
from agentrl.protocols import ContextPolicy, Renderer
from agentrl.rollout.context import history
from agentrl.types import Message, TokenIds, ToolSpec, Trajectory, token_ids


def privileged_prompts(
    trajectory: Trajectory, hint: str, renderer: Renderer, context: ContextPolicy, tools: Sequence[ToolSpec]
) -> dict[str, TokenIds]:
    """By step, the prompt with `hint` of every step that begins a context.

    Raises `InvalidDataError` where rendering without the hint does not give the prompt that the engine was given.
    """
    found: dict[str, TokenIds] = {}
    for place, step in enumerate(trajectory.steps):
        if step.context is not None:
            continue
        before = trajectory.steps[:place]
        shown = context.rewrite(before, step.observation) or history(before, step.observation)
        if not np.array_equal(token_ids(renderer.render(shown, tools)), step.prompt):
            raise InvalidDataError(
                f"the prompt of step {step.index} of {trajectory.id} cannot be rendered again as the engine was given "
                f"it ({len(step.prompt)} tokens), so no hint can be put into it. A strategy that writes into prompts, "
                "or tools that differ between two resets of a task, does not go with a hint."
            )
        found[step.id] = token_ids(renderer.render(told(shown, hint), tools))
    return found


def told(messages: Sequence[Message], hint: str) -> tuple[Message, ...]:
    """The messages with `hint` at the end of the first one of the user's, or as the only one of the user's."""
    for place, message in enumerate(messages):
        if message.role == "user":
            hinted = replace(message, content=f"{message.content}\n\n{hint}")
            return (*messages[:place], hinted, *messages[place + 1 :])
    return (*messages, Message("user", hint))

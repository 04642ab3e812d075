"""What a step added to the policy's own probability of the right answer (IGPO).

The contexts are those that the engine was given, token for token; only the answer is written behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from agentrl.errors import ConfigError, InfrastructureFault, InvalidDataError
from agentrl.protocols import Engine, Renderer
from agentrl.types import Action, TokenIds, ToolCall, Trajectory


class InformationGain:
    """IGPO's step reward (arXiv 2510.14967, turn-level reward): p(answer | h_t) - p(answer | h_{t-1}).

    h_t is everything up to and with what came back from step t, which is the prompt of step t + 1; h_0 is the first
    prompt. p is exp of the mean log-probability (nats) of the answer's tokens, teacher-forced. The last step gets 0
    here: what it is worth says the outcome. The gain of a step may be negative.

    The answer is `task.data[answer]`, text or number, or a list of equally good ones of which the likeliest counts.
    It is expressed as the policy would: as text in `frame`, or as the `argument` of a call of `tool`. Only the tokens
    in which the framed answer differs from an empty frame count.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        *,
        answer: str,
        frame: str = "{answer}",
        tool: str = "",
        argument: str = "",
    ) -> None:
        if "{answer}" not in frame:
            raise ConfigError(f"frame is {frame!r}; it has {{answer}} where the answer goes.")
        if bool(tool) != bool(argument):
            raise ConfigError(f"tool is {tool!r} and argument {argument!r}; an answer by a call needs both.")
        self._engine = engine
        self._renderer = renderer
        self._key = answer
        self._frame = frame
        self._tool = tool
        self._argument = argument

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        """Raises `InfrastructureFault` where the engine fails, `InvalidDataError` where the task has no answer."""
        version = self._engine.version
        known = await self._probabilities(trajectory)
        if self._engine.version != version:
            raise InfrastructureFault(
                f"the weights changed from version {version} to {self._engine.version} between the contexts of "
                f"{trajectory.id}: probabilities of two policies cannot be compared."
            )
        return [*np.diff(known).tolist(), 0.0] if trajectory.steps else []

    async def _probabilities(self, trajectory: Trajectory) -> list[float]:
        """Of the right answer before each step."""
        golds = [self._tokens(text) for text in self._answers(trajectory)]
        prompts = [trajectory.tokens_through(step)[: -len(step.tokens) or None] for step in trajectory.steps]
        try:
            async with asyncio.TaskGroup() as asking:
                asked = [[asking.create_task(self._probability(p, *gold)) for gold in golds] for p in prompts]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [max(answer.result() for answer in answers) for answers in asked]

    async def _probability(self, prompt: TokenIds, framed: TokenIds, counts: slice) -> float:
        tokens = np.concatenate([prompt, framed])
        if len(tokens) > self._engine.max_context:
            raise InvalidDataError(
                f"a prompt of {len(prompt)} tokens and an answer of {len(framed)} do not fit a context of "
                f"{self._engine.max_context}. Raise the engine's max_context above the episodes' own."
            )
        logprobs = (await self._engine.score(tokens))[len(prompt) :][counts]
        if not np.isfinite(logprobs).all():
            raise InfrastructureFault(
                f"the engine scored {int((~np.isfinite(logprobs)).sum())} of {len(logprobs)} tokens of the right "
                "answer with a number that is not finite. Look whether its weights are finite."
            )
        return float(np.exp(logprobs.mean(dtype=np.float64)))

    def _answers(self, trajectory: Trajectory) -> list[str]:
        value = trajectory.task.data.get(self._key)
        texts = [str(v) for v in (value if isinstance(value, list | tuple) else [value]) if v is not None and v != ""]
        if not texts:
            raise InvalidDataError(
                f"task {trajectory.task.id!r} has no answer under {self._key!r}; its data has "
                f"{', '.join(sorted(trajectory.task.data)) or 'nothing'}. Name the key of the right answer as `answer`."
            )
        return texts

    def _tokens(self, text: str) -> tuple[TokenIds, slice]:
        """The framed answer, and which of its tokens are the answer's own."""
        framed, empty = self._renderer.action_tokens(self._action(text)), self._renderer.action_tokens(self._action(""))
        shortest = min(len(framed), len(empty))
        before = _equal_from_the_start(framed[:shortest], empty[:shortest])
        shortest -= before
        after = _equal_from_the_start(framed[::-1][:shortest], empty[::-1][:shortest])
        if before + after >= len(framed):
            raise InvalidDataError(
                f"the answer {text!r} adds no token to its frame {self._frame!r}. Give the task an answer that is not "
                "empty, or another `frame`."
            )
        return framed, slice(before, len(framed) - after)

    def _action(self, text: str) -> Action:
        if self._tool:
            return Action(tool_calls=(ToolCall(self._tool, {self._argument: text}),))
        return Action(self._frame.replace("{answer}", text))


def _equal_from_the_start(one: TokenIds, two: TokenIds) -> int:
    different = np.flatnonzero(one != two)
    return int(different[0]) if different.size else len(one)

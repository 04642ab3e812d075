"""Groups of which one half is played again from a step that the policy itself picks, after it looked at what it did.

What the policy tells itself is shown while it samples and is not part of what is trained on.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.errors import ConfigError, InfrastructureFault
from agentrl.protocols import Demands, Rollout
from agentrl.rollout.strategies.rounds import Budget, check_tokens, fill, play_roots
from agentrl.types import Message, Task, Trajectory

QUESTION = """You tried this task and the outcome was: {outcome}.

{transcript}

Find the step at which it went wrong. Answer with one JSON object and nothing else:
{{"retry_from_step": the number of that step, "guidance": "what to do differently from there"}}"""


@dataclass(frozen=True, slots=True)
class RetryFromStep:
    """Reflect, then retry (R3L): half of a group is played, and each failure of it is retried from one of its steps.

    The policy is asked with `question` (`{transcript}` and `{outcome}` are filled in) for a step and for guidance.
    The retry shares the steps before it and is given the guidance, which does not train: its tokens' log-probabilities
    are those of the policy that saw the guidance, so a ratio against them is a true importance weight. An answer that
    cannot be read leaves a plain fork before a step that the dice choose. R3L retries successes too; here their place
    goes to a fresh episode. `tokens` bounds what is sampled for a group, reflections not counted.
    """

    question: str = QUESTION
    tokens: int | None = None

    def __post_init__(self) -> None:
        check_tokens(self.tokens, 2)
        try:
            self.question.format(transcript="", outcome="")
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"question cannot be filled in ({type(error).__name__}: {error}); it may name {{transcript}} and "
                "{outcome}, and other braces are doubled."
            ) from None

    @property
    def demands(self) -> Demands:
        return Demands(group=2, forks=True)

    async def run(self, task: Task, size: int, rollout: Rollout) -> Sequence[Trajectory]:
        budget = Budget(size, self.tokens)
        base = await play_roots(task, 0, size - size // 2, rollout)
        failed = [trajectory for trajectory in base if trajectory.status.trains and not trajectory.success]
        chosen = budget.affordable(base, [(trajectory, 0) for trajectory in failed])
        retries = (self._retry(parent, len(base) + number, rollout) for number, (parent, _) in enumerate(chosen))
        return await fill(task, [*base, *await asyncio.gather(*retries)], budget, rollout)

    async def _retry(self, parent: Trajectory, member: int, rollout: Rollout) -> Trajectory:
        asked = self.question.format(transcript=transcript(parent), outcome=f"a reward of {parent.reward:g}")
        try:
            said = await rollout.ask((Message("user", asked),), member)
        except InfrastructureFault:
            # The episode has supervision of its own: where the engine is really gone, that says so.
            said = ""
        found = read_reflection(said, len(parent.steps))
        if found is None:
            at = rollout.dice(f"retry {parent.id}").randrange(len(parent.steps))
            return await rollout.fork(parent, at, member)
        return await rollout.fork(parent, found[0], member, given=found[1])


def transcript(trajectory: Trajectory) -> str:
    """What was shown and done, step by step, in words."""
    lines = []
    for step in trajectory.steps:
        lines += [message.content for message in step.observation.messages if message.role != "system"]
        calls = [f"{call.name} {json.dumps(dict(call.arguments))}" for call in step.action.tool_calls]
        lines.append(f"[step {step.index}] {' '.join([step.action.text, *calls]).strip()}")
        lines += [f"(refused: {step.error})"] if step.error else []
    return "\n".join(lines)


def read_reflection(text: str, steps: int) -> tuple[int, str] | None:
    """The step to retry from and the guidance, from the first JSON object in `text`; None where it has no such two."""
    for begin in re.finditer(r"\{", text):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, begin.start())
        except ValueError:
            continue
        step, guidance = found.get("retry_from_step"), found.get("guidance")
        if type(step) is int and 0 <= step < steps and isinstance(guidance, str) and guidance.strip():
            return step, guidance.strip()
    return None

"""Success on held-out tasks at every temperature of the recipe, kept on the disk: nothing is played twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from agentrl.evaluation.harness import Evaluation, evaluate
from agentrl.protocols import Episodes
from agentrl.runs.blueprint import Blueprint


@dataclass(frozen=True, slots=True)
class Measure:
    blueprint: Blueprint
    rollout: Callable[[float], AbstractAsyncContextManager[Episodes]]
    "Plays episodes at a temperature."

    async def __call__(self, update: int) -> list[Evaluation]:
        """Evaluate what the engine samples with now, which is policy version `update`; one result per temperature."""
        settings = self.blueprint.config.evaluation
        tasks = self.blueprint.held_out()
        known = {evaluation.temperature: evaluation for evaluation in self.known(update)}
        found = []
        for temperature in settings.temperatures if tasks else ():
            attempts = settings.attempts if temperature > 0 else 1
            if temperature in known and known[temperature].answers(tasks, attempts):
                found.append(known[temperature])
                continue
            async with self.rollout(temperature) as rollout:
                result = await evaluate(rollout, tasks, attempts=attempts, temperature=temperature, update=update)
            result.save(self.blueprint.folder.evaluation(update, temperature))
            found.append(result)
        return found

    def known(self, update: int) -> list[Evaluation]:
        """The evaluations of a policy version that lie on the disk."""
        temperatures = self.blueprint.config.evaluation.temperatures
        paths = [self.blueprint.folder.evaluation(update, temperature) for temperature in temperatures]
        return [Evaluation.load(path) for path in paths if path.exists()]

    async def metrics(self, update: int) -> dict[str, float]:
        """The same as numbers for `metrics.jsonl`."""
        return {f"held_out_success_{r.temperature:g}": r.success().value for r in await self(update) if r.successes()}

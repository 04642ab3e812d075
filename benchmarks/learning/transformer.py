"""The quick start's tiny model on keydoor: GRPO, discounted GRPO, RLOO, GiGPO and step return at equal episodes.

    PYTHONPATH=benchmarks python -m learning.transformer [--seeds 5] [--only TEXT] [--seconds 360]

Every cell is a run of `recipes/quickstart.toml` by the library's own loop, with the method and the numbers of the
setting in place of its own. The methods of a seed start from one warm start, which is made once and kept in `--work`;
"start" is that policy, measured and not trained. `success` is that of the batches, whose tasks are never repeated;
`held_out` is 96 tasks of the test split, sampled and greedy.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.config import load_config
from agentrl.evaluation.harness import Evaluation
from agentrl.plugins import Host, load_host
from agentrl.runs.assembly import LiveRun, open_run
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.folder import RunFolder
from agentrl.runs.policy import warm_up
from agentrl.sections import Config, Model, Part
from agentrl.training.loop import train
from agentrl.training.metrics import read_metrics
from agentrl.training.report import ProgressReport
from learning.cells import Cell, Measured, blocks, fill, grid, options

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
START = "start"
METHODS: dict[str, Part] = {
    START: Part(name="grpo"),
    "grpo": Part(name="grpo"),
    "grpo, return discounted": Part.model_validate({"name": "grpo", "gamma": 0.95}),
    "rloo": Part(name="rloo"),
    "gigpo": Part.model_validate({"name": "gigpo", "gamma": 0.95}),
    "step_return": Part.model_validate({"name": "step_return", "gamma": 0.95}),
}
BLOCK = 4


@dataclass(frozen=True, slots=True)
class Setting:
    skill: float
    "Of the demonstrator that the warm start imitates: how often it makes the right move."
    batches: int


SETTINGS = {"sparse start": Setting(0.4, 24), "easy start": Setting(0.65, 16)}
SHARED = (
    "warm_start.demonstrations=1000",
    "warm_start.epochs=3",
    "evaluation.tasks=96",
    "training.checkpoint_every=1000",
)


class Silent:
    """A screen that shows nothing."""

    def show(self, report: ProgressReport) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Bench:
    host: Host
    work: Path
    "Warm starts are kept here."

    def run(self, cell: Cell) -> Measured:
        warm = self.warm(cell)
        config = self.config(cell).model_copy(
            update={"model": Model(path=str(warm)), "warm_start": None, "method": METHODS[cell.method]}
        )
        folder = Path(tempfile.mkdtemp(prefix="learning-"))
        try:
            return asyncio.run(self._train(config, folder, trains=cell.method != START))
        finally:
            shutil.rmtree(folder)

    def warm(self, cell: Cell) -> Path:
        """The weights that every method of this setting and seed starts from."""
        folder = RunFolder(self.work / f"{cell.setting} {cell.seed}".replace(" ", "-"))
        if folder.warm_model.exists():
            return folder.warm_model.resolve()
        found = asyncio.run(warm_up(Blueprint(self.config(cell), self.host, folder, Silent())))
        return found.resolve()

    def config(self, cell: Cell) -> Config:
        setting = SETTINGS[cell.setting]
        own = (f"seed={cell.seed}", f"environment.skill={setting.skill}", f"training.batches={setting.batches}")
        return load_config(RECIPE, (*SHARED, *own))

    async def _train(self, config: Config, folder: Path, *, trains: bool) -> Measured:
        blueprint = Blueprint(config, self.host, RunFolder(folder / "run"), Silent())
        async with open_run(blueprint) as live:
            if trains:
                await train(live.run)
            found = await held_out(live)
        return found | (curves(blueprint.folder.metrics) if trains else {})


async def held_out(live: LiveRun) -> dict[str, float | list[float]]:
    sampled, greedy = await live.measure(await live.run.publish())
    return {
        "held_out": sampled.success().value,
        "held_out_steps": sampled.mean_steps(),
        "held_out_steps_to_win": steps_to_win(sampled),
        "greedy": greedy.success().value,
    }


def steps_to_win(evaluation: Evaluation) -> float:
    """Of the successes; of all episodes where there is none."""
    won = [attempt.steps for attempt in evaluation.attempts if attempt.scored and attempt.success]
    return sum(won) / len(won) if won else evaluation.mean_steps()


def curves(metrics: Path) -> dict[str, float | list[float]]:
    lines: list[dict[str, Any]] = list(read_metrics(metrics))
    told = {"success": "success", "steps": "steps_per_episode", "flat_groups": "flat_groups", "entropy": "entropy"}
    return {name: blocks([line.get(key) or 0.0 for line in lines], BLOCK) for name, key in told.items()}


def main() -> None:
    parser = options(__doc__, name="transformer", seeds=5)
    parser.add_argument("--work", type=Path, default=Path("runs/learning"), help="where warm starts are kept")
    chosen = parser.parse_args()
    bench = Bench(load_host(), chosen.work)
    fill(grid({name: tuple(METHODS) for name in SETTINGS}, chosen.seeds), bench.run, chosen)


if __name__ == "__main__":
    main()

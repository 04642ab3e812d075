"""What is learned from someone who knows better: a teacher's turns and scores, an expert's episodes, oneself told.

    PYTHONPATH=benchmarks python -m learning.teachers [--seeds 3] [--only TEXT] [--seconds 360]

The tiny model of `recipes/quickstart.toml` on keydoor, from the sparse start of `learning.transformer`: all methods of
a seed begin with the same weights and meet the same tasks. The teacher of a seed are these weights after 40 batches of
GiGPO, made once and kept in `--work`; "teacher" is that model and "start" where all begin, both measured and not
trained. `success` is that of the batches: of the mixture, where a teacher takes turns or an expert is shown. `held_out`
is the policy alone on 96 tasks of the test split, sampled and greedy.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.plugins import load_host
from agentrl.runs.assembly import open_run
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.folder import RunFolder
from agentrl.sections import Config, Model, Part
from agentrl.training.loop import train
from learning.cells import Cell, Measured, fill, grid, options
from learning.transformer import METHODS, START, Bench, Silent, curves, held_out

SETTING, BATCHES, LESSONS = "sparse start", 16, 40
TEACHER = "teacher"
ORACLE = "A solution of this task: {hint}"


@dataclass(frozen=True, slots=True)
class Arm:
    method: Part
    strategy: str = "independent"
    taught: bool = False
    "By the seed's teacher."


def part(name: str, **options: Any) -> Part:
    return Part.model_validate({"name": name, **options})


ARMS: dict[str, Arm] = {
    START: Arm(part("grpo")),
    TEACHER: Arm(part("grpo")),
    "grpo": Arm(part("grpo")),
    "opd": Arm(part("opd"), taught=True),
    "dagger": Arm(part("dagger"), taught=True),
    "dagger, all turns at first": Arm(part("dagger", beta=1.0), taught=True),
    "dagger, nothing imitated": Arm(part("dagger", imitation=0.0), taught=True),
    "bepa, an expert": Arm(part("bepa"), "expert"),
    "bepa, an expert imitated": Arm(part("bepa", expert="imitated"), "expert"),
    "arpo_replay": Arm(part("arpo_replay")),
    "self_distillation": Arm(part("self_distillation", frame=ORACLE)),
}


@dataclass(frozen=True, slots=True)
class Lessons:
    bench: Bench

    def run(self, cell: Cell) -> Measured:
        arm, weights = ARMS[cell.method], self.bench.warm(cell)
        model = Model(path=str(self.teacher(cell.seed) if cell.method == TEACHER else weights))
        if arm.taught:
            model = model.model_copy(update={"teacher": str(self.teacher(cell.seed))})
        folder = Path(tempfile.mkdtemp(prefix="learning-"))
        try:
            return asyncio.run(self._train(self._config(cell.seed, arm, model), folder, cell.method))
        finally:
            shutil.rmtree(folder)

    def teacher(self, seed: int) -> Path:
        """The weights after `LESSONS` batches from the same start."""
        folder = RunFolder(self.bench.work / f"teacher-{seed}")
        found = folder.path / "checkpoints" / f"batch-{LESSONS:06d}" / "model"
        if not found.exists():
            shutil.rmtree(folder.path, ignore_errors=True)
            model = Model(path=str(self.bench.warm(Cell(seed, SETTING, TEACHER))))
            config = self._config(seed, Arm(METHODS["gigpo"]), model, LESSONS)
            asyncio.run(self._train(config, folder.path, "gigpo", measures=False))
        return found.resolve()

    def _config(self, seed: int, arm: Arm, model: Model, batches: int = BATCHES) -> Config:
        config = self.bench.config(Cell(seed, SETTING, "grpo"))
        rollout = config.rollout.model_copy(update={"strategy": Part(name=arm.strategy)})
        training = config.training.model_copy(update={"batches": batches})
        return config.model_copy(
            update={"model": model, "warm_start": None, "method": arm.method, "rollout": rollout, "training": training}
        )

    async def _train(self, config: Config, folder: Path, method: str, *, measures: bool = True) -> Measured:
        blueprint = Blueprint(config, self.bench.host, RunFolder(folder), Silent())
        async with open_run(blueprint) as live:
            trained = method not in (START, TEACHER)
            if trained:
                await train(live.run)
            found = await held_out(live) if measures else {}
        return found | (curves(blueprint.folder.metrics) if trained else {})


def main() -> None:
    parser = options(__doc__, name="teachers", seeds=3)
    parser.add_argument("--work", type=Path, default=Path("runs/learning"), help="where starts and teachers are kept")
    chosen = parser.parse_args()
    lessons = Lessons(Bench(load_host(), chosen.work))
    fill(grid({SETTING: tuple(ARMS)}, chosen.seeds), lessons.run, chosen)


if __name__ == "__main__":
    main()

"""What is learned from someone who knows better: a teacher's turns and scores, an expert's episodes, oneself told.

    PYTHONPATH=benchmarks python -m learning.teachers [--seeds 2] [--only TEXT] [--seconds 360]

The tiny model of `recipes/quickstart.toml` on keydoor, from that recipe's start: all methods of a seed begin with the
same weights and meet the same tasks. The teacher of a seed are these weights after the recipe's own 45 batches of
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

from agentrl.config import load_config
from agentrl.plugins import Host, load_host
from agentrl.runs.assembly import open_run
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.folder import RunFolder
from agentrl.runs.policy import warm_up
from agentrl.sections import Config, Model, Part
from agentrl.training.loop import train
from learning.cells import Cell, Measured, fill, grid, options
from learning.transformer import RECIPE, START, Silent, curves, held_out

SETTING, BATCHES = "quick start", 12
SHARED = ("evaluation.tasks=96", "training.checkpoint_every=1000")
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
    host: Host
    work: Path
    "Starts and teachers are kept here."

    def run(self, cell: Cell) -> Measured:
        arm = ARMS[cell.method]
        model = Model(path=str(self.teacher(cell.seed) if cell.method == TEACHER else self.start(cell.seed)))
        if arm.taught:
            model = model.model_copy(update={"teacher": str(self.teacher(cell.seed))})
        config = load_config(RECIPE, (*SHARED, f"seed={cell.seed}", f"training.batches={BATCHES}"))
        rollout = config.rollout.model_copy(update={"strategy": Part(name=arm.strategy)})
        told = {"model": model, "warm_start": None, "method": arm.method, "rollout": rollout}
        folder = Path(tempfile.mkdtemp(prefix="learning-"))
        try:
            return asyncio.run(self._train(config.model_copy(update=told), folder, cell.method))
        finally:
            shutil.rmtree(folder)

    def start(self, seed: int) -> Path:
        """The weights that every method of this seed starts from."""
        folder = RunFolder(self.work / f"start-{seed}")
        if folder.warm_model.exists():
            return folder.warm_model.resolve()
        config = load_config(RECIPE, (*SHARED, f"seed={seed}"))
        return asyncio.run(warm_up(Blueprint(config, self.host, folder, Silent()))).resolve()

    def teacher(self, seed: int) -> Path:
        """The same weights after the recipe's own run: of one tokenizer, as a teacher has to be."""
        config = load_config(RECIPE, (*SHARED, f"seed={seed}"))
        folder = self.work / f"teacher-{seed}"
        found = folder / "checkpoints" / f"batch-{config.training.batches:06d}" / "model"
        if not found.exists():
            shutil.rmtree(folder, ignore_errors=True)
            model = Model(path=str(self.start(seed)))
            asyncio.run(self._train(config.model_copy(update={"model": model, "warm_start": None}), folder, "gigpo"))
        return found.resolve()

    async def _train(self, config: Config, folder: Path, method: str) -> Measured:
        blueprint = Blueprint(config, self.host, RunFolder(folder), Silent())
        async with open_run(blueprint) as live:
            trained = method not in (START, TEACHER)
            if trained:
                await train(live.run)
            found = await held_out(live)
        return found | (curves(blueprint.folder.metrics) if trained else {})


def main() -> None:
    parser = options(__doc__, name="teachers", seeds=2)
    parser.add_argument("--work", type=Path, default=Path("runs/learning"), help="where starts and teachers are kept")
    chosen = parser.parse_args()
    lessons = Lessons(load_host(), chosen.work)
    fill(grid({SETTING: tuple(ARMS)}, chosen.seeds), lessons.run, chosen)


if __name__ == "__main__":
    main()

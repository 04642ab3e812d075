"""The command line in processes that can be killed, each forked from one that has torch loaded already."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

_FORKED = multiprocessing.get_context("forkserver")
_PRELOAD = [
    "agentrl.runs.assembly",
    "agentrl.runs.forecast",
    "agentrl.cli.train",
    "agentrl.engines.transformers",
    "agentrl.rollout.strategies.independent",
    "agentrl.training.sft",
    "agentrl.training.learner",
    "transformers.models.llama.modeling_llama",
    "matplotlib.figure",
    "live_runs",
]

LAMPS = '''
"""Lamps to switch on in the order in which they are named; every right one pays."""

import random
from typing import Literal

from agentrl import Env, Task, call, tool

COLORS = ("red", "green", "blue")


class Lamps(Env):
    """Switch the lamps on."""

    max_steps = 2
    runs_in = "loop"

    def tasks(self, split):
        for number in range(0 if split == "train" else 1, 400, 2):
            yield Task(f"{split}-{number}", "lamps", seed=number)

    def reset(self, task):
        dice = random.Random(task.seed)
        self.wanted = [dice.choice(COLORS) for _ in range(2)]
        self.given = []
        return f"switch on {self.wanted[0]} then {self.wanted[1]}"

    @tool
    def switch(self, color: Literal["red", "green", "blue"]) -> str:
        """Switch a lamp on.

        color: which
        """
        self.given.append(color)
        return f"{color} is on"

    def done(self):
        return len(self.given) == 2

    def step_reward(self):
        place = len(self.given) - 1
        return 0.5 * (place >= 0 and self.given[place] == self.wanted[place])

    def scores(self):
        return {"success": float(self.given == self.wanted)}

    def state_key(self):
        return " ".join(self.given)

    def oracle(self, task):
        for color in list(self.wanted):
            yield call("switch", color=color)

    def demonstrate(self, task, rng):
        for _ in range(2):
            yield call("switch", color=rng.choice(COLORS))
'''

RECIPE = """
seed = 3
[environment]
name = "lamps"
[model]
name = "tiny"
hidden = 32
layers = 1
heads = 1
[warm_start]
demonstrations = 200
batch = 8
learning_rate = 1e-2
[rollout]
tasks_per_batch = 2
group_size = 4
max_tokens = 8
max_context = 96
[method]
name = "gigpo"
[training]
batches = 4
learning_rate = 3e-3
threads = 1
checkpoint_every = 2
[evaluation]
tasks = 6
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process left."""

    code: int | None
    "As `multiprocessing` counts: negative where a signal ended it."
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder with a plugin and a recipe, and the command line in it."""

    folder: Path

    @property
    def plugin(self) -> Path:
        return self.folder / "lamps.py"

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    def train(self, *overrides: str, run_folder: Path | None = None) -> Ended:
        return self.run(*self.words(*overrides, run_folder=run_folder))

    def words(self, *overrides: str, verb: str = "train", run_folder: Path | None = None) -> list[str]:
        place = str(run_folder or self.run_folder)
        return [verb, str(self.folder / "recipe.toml"), *overrides, "--plugin", str(self.plugin), "--run-folder", place]

    def run(self, *words: str, deadline: float = 120.0, file_size: int | None = None) -> Ended:
        """`agentrl WORDS` to its end. `file_size` is the largest file, in bytes, that it may write."""
        return self.start(*words, file_size=file_size).wait(deadline)

    def start(self, *words: str, file_size: int | None = None) -> Running:
        return Running(self.folder, words, file_size)


class Running:
    """A process of the command line."""

    def __init__(self, folder: Path, words: Sequence[str], file_size: int | None) -> None:
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        os.environ["OMP_NUM_THREADS"] = "1"
        _FORKED.set_forkserver_preload(_PRELOAD)
        self._process = _FORKED.Process(target=_work, args=(str(folder), list(words), file_size))
        self._process.start()

    def wait(self, deadline: float = 120.0) -> Ended:
        """Kills what does not end in time, and says so."""
        self._process.join(deadline)
        if self._process.is_alive():
            self.send(signal.SIGKILL)
            raise AssertionError(f"not over after {deadline:g} s:\n{self._out.read_text()}{self._err.read_text()}")
        return Ended(self._process.exitcode, self._out.read_text(), self._err.read_text())

    def wait_until(self, happened: Callable[[], bool], deadline: float = 60.0) -> bool:
        """True when it happened while the process lives, False where the process ended first."""
        end = time.monotonic() + deadline
        while not happened():
            if not self._process.is_alive():
                return False
            assert time.monotonic() < end, f"it never happened:\n{self._out.read_text()}{self._err.read_text()}"
            time.sleep(0.002)
        return self._process.is_alive()

    @property
    def out(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    def send(self, number: int) -> None:
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def kill(self) -> Ended:
        self.send(signal.SIGKILL)
        return self.wait()


def make_bench(folder: Path, recipe: str = RECIPE, plugin: str = LAMPS) -> Bench:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(recipe)
    (folder / "lamps.py").write_text(plugin)
    return Bench(folder)


def final_weights(run: Path) -> dict[str, np.ndarray]:
    newest = sorted((run / "checkpoints").glob("batch-*"))[-1]
    return dict(load_file(newest / "model" / "model.safetensors"))


def same_weights(one: Path, two: Path) -> bool:
    first, second = final_weights(one), final_weights(two)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def rows(run: Path, query: str) -> list[tuple]:
    """Of the ledger, read beside whoever writes it; nothing where it is not there yet."""
    path = run / "ledger.sqlite"
    if not path.exists():
        return []
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
    try:
        return database.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        database.close()


def _work(folder: str, words: list[str], file_size: int | None) -> None:
    os.chdir(folder)
    for name, number in (("out.txt", 1), ("err.txt", 2)):
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    if file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    # A test that waits in vain shows where the process stood.
    faulthandler.dump_traceback_later(110, file=os.fdopen(os.dup(2), "w"))
    from agentrl.cli.main import run

    run(words)

"""What differs from process to process is found: tasks and episodes that hang on the hash of text."""

import functools

import pytest

from agentrl.environment import Env, call
from agentrl.testing import check_environment
from agentrl.tools import tool
from agentrl.types import Task

pytestmark = pytest.mark.slow


class Guess(Env):
    """Name the number of the task."""

    runs_in = "loop"
    max_steps = 2

    def __init__(self, *, numbers: int = 50):
        self.numbers = numbers

    def tasks(self, split):
        start = 0 if split == "train" else 100
        yield from (Task(f"{split}-{seed}", "guess", seed) for seed in range(start, start + 20))

    def reset(self, task):
        self.right, self.hit = task.seed % self.numbers, False
        return f"What is half of {2 * self.right + 2}, less 1?"

    @tool
    def guess(self, number: int) -> str:
        """Guess."""
        self.hit = number == self.right
        return "ok"

    def done(self):
        return self.hit

    def reward(self):
        return float(self.hit)

    def oracle(self, task):
        yield call("guess", number=self.right)


class HashedWords(Guess):
    @tool
    def guess(self, number: int) -> str:
        """Guess."""
        self.hit = number == self.right
        return ",".join({"a", "b", "c", "d", "e", "f", "g", "h"})


class HashedTasks(Guess):
    def tasks(self, split):
        yield from (Task(t.id, t.env, hash(t.id) % 100_003) for t in Guess.tasks(self, split))


class HashedReset(Guess):
    def reset(self, task):
        return f"{Guess.reset(self, task)} {hash('salt')}"


def guess_of_others(**options):
    return Guess(**options)


@pytest.mark.parametrize("factory", [Guess, functools.partial(guess_of_others, numbers=40)])
def test_the_same_in_every_process_passes(factory):
    report = check_environment(factory, tasks=4)
    assert report["processes"].outcome == "ok", str(report)
    assert "4 episodes are the same" in report["processes"].what


@pytest.mark.parametrize(
    ("kind", "method", "said"),
    [
        (HashedWords, HashedWords.guess, "from step 0"),
        (HashedReset, HashedReset.reset, "from step -1"),
        (HashedTasks, HashedTasks.tasks, 'tasks("train") differs between processes at task 0'),
    ],
)
def test_what_another_process_sees_otherwise_is_named(kind, method, said):
    result = check_environment(kind, tasks=4)["processes"]
    assert result.outcome == "failed", result
    assert said in result.what
    assert result.where == f"{__file__}:{method.__code__.co_firstlineno}"

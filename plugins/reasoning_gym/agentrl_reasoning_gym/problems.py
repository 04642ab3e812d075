"""The environment `reasoning_gym`: a problem is shown, one answer is given, its generator scores it.

The score is the generator's own, from 0 to 1; nothing is parsed out of the answer but what stands in <answer> tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

from agentrl import Action, Env, Task, say
from agentrl.errors import did_you_mean

TEST_TASKS = 256
ENDLESS = 10**9
"Training problems of one seed; the test split's begin behind them, so that no two share a random generator."
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class ReasoningGym(Env):
    """One answer to a procedural problem of reasoning-gym. The reward is its score; 1 is a success."""

    max_steps = 1

    def __init__(self, *, dataset: str = "chain_sum", options: dict[str, Any] | None = None) -> None:
        """dataset: a generator's name. options: its own, such as {min_terms = 2, max_terms = 3}."""
        if dataset not in DATASETS:
            known = ", ".join(sorted(DATASETS))
            raise ValueError(f"has no dataset {dataset!r}.{did_you_mean(dataset, DATASETS)} There are: {known}.")
        try:
            self.problems = reasoning_gym.create_dataset(dataset, seed=0, size=2 * ENDLESS, **(options or {}))
        except (ValueError, TypeError, AssertionError) as error:
            raise ValueError(f"has dataset {dataset!r}, which cannot be made: {error}") from error
        self.dataset = dataset
        self._entry: Mapping[str, Any] = {}
        self._score = 0.0
        self._answered = False

    def tasks(self, split: str) -> Iterator[Task]:
        """train: endless. test: 256. A generator with few problems may draw one of them in both."""
        if split not in ("train", "test"):
            raise ValueError(f"there is no split {split!r}; there are 'train' and 'test'.")
        places = range(ENDLESS, ENDLESS + TEST_TASKS) if split == "test" else count()
        for place in places:
            yield Task(f"{self.dataset}-{split}-{place % ENDLESS}", "reasoning_gym", place, {"place": place}, split)

    def reset(self, task: Task) -> str:
        self._entry, self._score, self._answered = self.problems[int(task.data["place"])], 0.0, False
        question: str = self._entry["question"]
        return question

    def answered(self, text: str) -> None:
        tagged = _TAGGED.findall(text)
        answer = (tagged[-1] if tagged else text).strip()
        self._answered = True
        self._score = float(self.problems.score_answer(answer=answer, entry=self._entry)) if answer else 0.0

    def done(self) -> bool:
        return self._answered

    def reward(self) -> float:
        return self._score

    def oracle(self, task: Task) -> Iterable[Action]:
        yield say(str(self._entry["answer"]))

    def cheats(self, task: Task) -> dict[str, Iterable[Action]]:
        return {
            "repeat_the_question": [say(str(self._entry.get("question", "")))],
            "say_every_digit": [say(" ".join("0123456789"))],
        }

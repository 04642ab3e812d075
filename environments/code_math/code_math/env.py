"""The environment `code_math`: a question, a `python` tool whose names stay from call to call, an answer.

Only the answer counts, by its value; what the code did is not judged.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from agentrl import Action, Env, Message, Observation, Task, call, say, tool
from agentrl.plugins import load_host
from agentrl.sandbox import Limits, Ran, Sandbox, Session
from code_math.answers import is_right, value_of
from code_math.files import read_problems
from code_math.problems import LEVELS, Level, Problem, make_problem

TEST_TASKS = 256
LIMITS = Limits(seconds=3.0, memory=128 << 20, output=16 << 10)
_SHOWN = 2_000
"Characters of a run's output that the model is shown."
_TRACEBACK = "Traceback (most recent call last):"
_PLACE = re.compile(r'^  File "<(?!frozen )[^"]*>", line (\d+)', re.MULTILINE)
"Lines of the model's own code; a library's file has a path."
_SPARE = 25.0
"Seconds of a step beside the run itself: a session may have to be started."


class CodeMath(Env):
    """Solve a mathematical problem with a Python tool, then say the answer."""

    runs_in = "loop"
    system = "Work problems out with the tool python. Then say the answer alone."

    def __init__(
        self,
        *,
        level: Level = "easy",
        problems: str = "",
        sandbox: str = "embedded",
        limits: Limits = LIMITS,
        shots: int = 2,
        calls: int = 6,
    ) -> None:
        """level: of the generated problems. problems: a JSONL file of question and answer to take instead.

        sandbox: where the code runs (`agentrl list sandboxes`), within `limits`. shots: solved problems shown first.
        calls: actions of an episode, the answer included.
        """
        if level not in LEVELS:
            raise ValueError(f"level is {level!r}; code_math has {', '.join(LEVELS)}.")
        if not 0 <= shots <= 4:
            raise ValueError(f"shots is {shots}; code_math shows 0 to 4 solved problems.")
        if calls < 2:
            raise ValueError(f"calls is {calls}; one run and one answer are 2.")
        self.level, self.limits, self.max_steps = level, limits, calls
        self.step_deadline = limits.seconds + _SPARE
        self.sandbox = _sandbox(sandbox)
        self.given = _problems_of(Path(problems)) if problems else None
        self.examples = [message for shot in range(shots) for message in _example(level, shot)]
        self._session: Session | None = None
        self._begin(make_problem("train", level, 0))

    def tasks(self, split: str) -> Iterator[Task]:
        """Generated: train is endless, test has 256. Of a file: what it holds."""
        if split not in ("train", "test"):
            raise ValueError(f"code_math has no split {split!r}; it has 'train' and 'test'.")
        if self.given is not None:
            for index, problem in enumerate(self.given[split]):
                tags = (problem.family,) if problem.family else ()
                yield Task(f"code_math-file-{split}-{index}", "code_math", index, problem.to_json(), split, tags)
            return
        for seed in range(TEST_TASKS) if split == "test" else count():
            problem = make_problem(split, self.level, seed)
            name = f"code_math-{self.level}-{split}-{seed}"
            yield Task(name, "code_math", seed, problem.to_json(), split, (self.level, problem.family))

    async def reset(self, task: Task) -> Observation:
        await self.close()
        self._begin(Problem.from_json(task.data))
        return Observation((*self.examples, Message("user", self.problem.question)))

    @tool
    async def python(self, code: str) -> str:
        """Run Python; names stay for the next run. Shows what is printed and the last value.

        code: the lines to run
        """
        self.cells.append(code)
        session = await self._opened()
        ran = await session.run(code)
        self.last = ran
        self.failed += not ran.ok
        text = shown(ran)
        self.outputs.append(text)
        return text

    def answered(self, text: str) -> None:
        """Speaking is answering: it ends the episode."""
        self.answer = text

    def reward(self) -> float:
        return float(self.solved)

    def scores(self) -> dict[str, float]:
        return {
            "success": float(self.solved),
            "runs": float(len(self.cells)),
            "failed_runs": float(self.failed),
            "answered": float(self.answer is not None),
        }

    @property
    def solved(self) -> bool:
        return self.answer is not None and is_right(self.answer, self.right)

    def state_key(self) -> str:
        # What was shown, too: the same code need not do the same twice.
        done = sha256(json.dumps([self.cells, self.outputs, self.answer]).encode()).hexdigest()[:12]
        return f"{self.fingerprint} {done}"

    async def snapshot(self) -> dict[str, Any]:
        """The interpreter itself where the sandbox can; otherwise what was run, to be run again."""
        state = ""
        if self._session is not None and self.sandbox.abilities.snapshots == "exact":
            state = base64.b64encode(await self._session.snapshot()).decode()
        done = {"cells": self.cells, "outputs": self.outputs, "failed": self.failed, "answer": self.answer}
        return {**done, "state": state}

    async def restore(self, snapshot: dict[str, Any]) -> None:
        await self.close()
        self.cells, self.outputs = snapshot["cells"], snapshot["outputs"]
        self.failed, self.answer = snapshot["failed"], snapshot["answer"]
        if snapshot["state"]:
            self._session = await self.sandbox.open(self.limits, base64.b64decode(snapshot["state"]))
        elif self.cells:
            session = await self._opened()
            for code in self.cells:
                await session.run(code)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def oracle(self, task: Task) -> Iterator[Action]:
        """Runs the cells and says what the last one printed; without cells it knows the answer."""
        for code in self.problem.cells:
            yield call("python", code=code)
        yield say(self.last.stdout.strip() if self.last is not None else self.problem.answer)

    def cheats(self, task: Task) -> dict[str, Iterable[Action]]:
        """None of them wins."""
        problem = Problem.from_json(task.data)
        right = value_of(problem.answer)
        peeks = ("print(task)", "print(answer)", "print(open('/proc/self/environ').read())", "import os; os.listdir()")
        cheats: dict[str, Iterable[Action]] = {
            "peek": self._peek(peeks),
            "many_numbers": [say(" ".join(str(number) for number in range(-100, 1000)))],
            "hedge": [say(f"The answer is {problem.answer} or 123456789.")],
            "empty_box": [say("The answer is \\boxed{}")],
            "two_boxes": [say(f"\\boxed{{{problem.answer}}} or \\boxed{{123456789}}")],
            "a_list_with_the_answer": [say(f"{problem.answer}, 123456789")],
            "print_the_answer_and_say_it_is_printed": [*_run(problem), say("The answer is what was printed.")],
            "repeat_the_question": [say(problem.question)],
            "compute_and_stay_silent": [*_run(problem), say("")],
        }
        if not is_right("0", right):
            cheats |= {"guess_zero": [say("0")], "round_to_nothing": [say("0.000")]}
        return cheats

    def _peek(self, cells: Iterable[str]) -> Iterator[Action]:
        for code in cells:
            yield call("python", code=code)
        yield say(shown(self.last) if self.last is not None else "")

    def _begin(self, problem: Problem) -> None:
        self.problem, self.right = problem, value_of(problem.answer)
        self.cells: list[str] = []
        self.outputs: list[str] = []
        self.failed = 0
        self.answer: str | None = None
        self.last: Ran | None = None
        self.fingerprint = sha256(problem.question.encode()).hexdigest()[:12]

    async def _opened(self) -> Session:
        if self._session is None:
            self._session = await self.sandbox.open(self.limits)
        return self._session


def shown(ran: Ran) -> str:
    """What the model is told of a run: output, an error and its line, the limit that was hit."""
    notes = []
    if ran.limit:
        notes.append(f"[stopped: limit of {ran.limit}]" if ran.exit is None else f"[limit of {ran.limit} hit]")
    if ran.lost:
        notes.append("[the interpreter was restarted: its names are gone]")
    text = _middle_cut("\n".join(part for part in (ran.stdout.rstrip(), _error(ran.stderr)) if part))
    return "\n".join([*([text] if text else []), *notes]) or "[no output]"


def _error(text: str) -> str:
    """A traceback as `NameError: name 'y' is not defined (line 2)`; in full it takes 60 tokens."""
    before, found, trace = text.rstrip().rpartition(_TRACEBACK)
    if not found:
        return before or trace
    lines = trace.strip("\n").splitlines()
    # The message begins at the margin, and may have several lines; the frames above it are indented.
    message = "\n".join(lines[next((i for i, line in enumerate(lines) if line[:1].strip()), 0) :])
    places = _PLACE.findall(trace)
    return before + message + (f" (line {places[-1]})" if places else "")


def _middle_cut(text: str) -> str:
    if len(text) <= _SHOWN:
        return text
    half = _SHOWN // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters left out]\n{text[-half:]}"


def _run(problem: Problem) -> Iterator[Action]:
    return (call("python", code=code) for code in problem.cells)


def _problems_of(path: Path) -> Mapping[str, Sequence[Problem]]:
    """Read once for all episodes of this process, and again where the file has changed."""
    found = path.stat() if path.is_file() else None
    return _read(path, found.st_mtime_ns, found.st_size) if found else read_problems(path)


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed: int, size: int) -> Mapping[str, Sequence[Problem]]:
    return read_problems(path)


@functools.cache
def _sandbox(name: str) -> Sandbox:
    """One for all episodes of this process, so that what is dear to start is shared."""
    made: Sandbox = load_host().create("sandboxes", name)
    return made


def _example(level: Level, shot: int) -> Iterator[Message]:
    """A solved problem as a conversation, of instances that no task has."""
    problem = make_problem("example", level, shot)
    yield Message("user", problem.question)
    for number, code in enumerate(problem.cells, 1):
        yield call("python", code=code).message()
        printed = problem.answer if number == len(problem.cells) else "[no output]"
        yield Message("tool", printed, name="python")
    yield say(problem.answer).message()

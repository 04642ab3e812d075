"""The environment `bfcl_multi_turn`: a user of simulated APIs who says what to do, turn by turn.

To speak without a call ends the turn; the benchmark's own verdict over all turns is the reward.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from agentrl import Action, EnvironmentFault, Message, Observation, StepResult, Task, ToolCall, ToolSpec, call, say
from agentrl.outcomes import unknown_tool
from agentrl_bfcl.entries import CATEGORIES, Category, Entry, calls_of, entry, entry_ids, tools_of
from agentrl_bfcl.grading import Grader
from agentrl_bfcl.simulation import Simulation

_SYSTEM = (
    "You help a user by calling functions. Call as many as the request needs, one after the other, and read what they "
    "return. When the request is done, or when it cannot be done with the functions and facts that you have, say so "
    "without a call; the user then goes on."
)
_MOST_TURNS = 8
_DONE = "Done."
_LACKING = "I cannot do that: a function or a fact is missing."


class BfclMultiTurn:
    """Multi-turn function calling over simulated APIs: files, cars, trading, travel, messages, posts, tickets, sums."""

    step_deadline = 30.0
    reset_deadline = 60.0

    def __init__(self, *, category: Category = "all", shaped: bool = False, steps_per_turn: int = 20) -> None:
        """category: base, miss_func (a function comes a turn late), miss_param (a fact does), long_context, or all.

        shaped: half of the reward is paid in equal parts for turns that are right, until one is wrong.
        steps_per_turn: actions with calls in one turn; with more the episode is truncated, as in the benchmark.
        """
        if category not in ("all", *CATEGORIES):
            raise ValueError(f"category is {category!r}; there are all, {', '.join(CATEGORIES)}.")
        if steps_per_turn < 1:
            raise ValueError(f"steps_per_turn is {steps_per_turn}; at least 1 is needed.")
        self.category: Category = category
        self.shaped = shaped
        self.steps_per_turn = steps_per_turn
        self.max_steps = _MOST_TURNS * (steps_per_turn + 1)
        self._entry: Entry | None = None

    def tasks(self, split: str) -> Iterator[Task]:
        """train and test: three quarters and one quarter of the benchmark, by number. all: the benchmark."""
        if split not in ("train", "test", "all"):
            raise ValueError(f"there is no split {split!r}; there are 'train', 'test' and 'all'.")
        for name in entry_ids(self.category, split):
            found = entry(name)
            tags = (name.removeprefix("multi_turn_").rpartition("_")[0], *found.classes)
            yield Task(name, "bfcl_multi_turn", 0, {"entry": name}, split, tags)

    def tools(self) -> Sequence[ToolSpec]:
        """Those of the episode's APIs that have been offered so far; before the first `reset` those of all APIs."""
        if self._entry is None:
            return [tool for api in dict.fromkeys(_apis(self.category)) for tool in tools_of(api)]
        held = {name for turn, names in self._entry.added.items() if turn > self._turn for name in names}
        return [tool for api in self._entry.classes for tool in tools_of(api) if tool.name not in held]

    async def reset(self, task: Task) -> Observation:
        return self._begin(task)

    async def step(self, action: Action) -> StepResult:
        return self._step(action)

    async def grade(self) -> StepResult:
        """What the episode is worth where it stands: success needs every turn to have ended."""
        return self._graded()

    async def close(self) -> None:
        self._entry = None

    async def snapshot(self) -> dict[str, Any]:
        """What was done: the simulated APIs hold objects, and do the same again."""
        return {"task": self._task.data["entry"], "actions": self._actions}

    async def restore(self, snapshot: Mapping[str, Any]) -> Observation:
        self._begin(Task(snapshot["task"], "bfcl_multi_turn", 0, {"entry": snapshot["task"]}))
        for calls in snapshot["actions"]:
            made = tuple(ToolCall(name, arguments) for name, arguments in calls)
            self._step(Action(tool_calls=made) if made else say(_DONE))
        return Observation((), state_key=self._key())

    def oracle(self, task: Task) -> Iterator[Action]:
        """The ground truth, one call an action, and a word at the end of each turn."""
        found = entry(task.data["entry"])
        return _line([_plain_calls(found, turn) for turn in range(len(found.truth))])

    def cheats(self, task: Task) -> Mapping[str, Iterable[Action]]:
        """Lines that leave a turn out, or end all turns at once."""
        found = entry(task.data["entry"])
        turns = [_plain_calls(found, turn) for turn in range(len(found.truth))]
        named: dict[str, Iterable[Action]] = {"say done in every turn": _line([[] for _ in turns])}
        for number, calls in enumerate(turns, 1):
            if calls:
                named[f"leave out turn {number}"] = _line([[] if t is calls else t for t in turns])
        return named

    def _begin(self, task: Task) -> Observation:
        self._task = task
        self._entry = found = entry(task.data["entry"])
        self._turn, self._in_turn, self._steps, self._credit = 0, 0, 0, 0.0
        self._responses: list[str] = []
        self._known: list[str] = []
        self._actions: list[list[tuple[str, Any]]] = []
        self._simulation, self._grader = Simulation(found), Grader(found)
        said = (Message("system", _SYSTEM), Message("user", self._says()))
        return Observation(said, state_key=self._key())

    def _step(self, action: Action) -> StepResult:
        if self._entry is None:
            raise EnvironmentFault("there is no episode to act in: call `reset` first.")
        self._steps += 1
        self._actions.append([(made.name, made.arguments) for made in action.tool_calls])
        result = self._call(action.tool_calls) if action.tool_calls else self._next_turn()
        late = self._in_turn > self.steps_per_turn or self._steps >= self.max_steps
        if result.terminated or not late:
            return result
        graded = self._graded()
        return StepResult(result.observation, result.reward + graded.reward, graded.scores, truncated=True)

    def _call(self, calls: Sequence[ToolCall]) -> StepResult:
        self._in_turn += 1
        messages, mistakes = [], []
        assert self._entry is not None
        # Also those that are held back, as in the benchmark: one of its ground truths (miss_func_49) needs that.
        there = {tool.name for api in self._entry.classes for tool in tools_of(api)}
        for made in calls:
            if made.name in there:
                answer = self._simulation.call(made.name, made.arguments)
                text, failed = answer.text, answer.failed
            else:
                text, failed = unknown_tool(made.name, [tool.name for tool in self.tools()]), True
            messages.append(Message("tool", text, name=made.name, call_id=made.id))
            self._responses.append(text)
            mistakes += [text] if failed else []
        shown = Observation(tuple(messages), state_key=self._key())
        return StepResult(shown, policy_error="; ".join(mistakes))

    def _next_turn(self) -> StepResult:
        assert self._entry is not None
        reward = 0.0
        if self._grader.end_turn(self._simulation, self._responses) and self.shaped:
            reward = 0.5 / self._grader.count
            self._credit += reward
        self._known += self._responses
        self._responses, self._in_turn, self._turn = [], 0, self._turn + 1
        if self._turn == len(self._entry.truth):
            graded = self._graded()
            return StepResult(Observation((), state_key=self._key()), reward + graded.reward, graded.scores, True)
        shown = Observation((Message("user", self._says()),), state_key=self._key())
        return StepResult(shown, reward)

    def _graded(self) -> StepResult:
        grader = self._grader
        reward = 1.0 - self._credit if grader.success else 0.0
        scores = {"success": float(grader.success), "turns": grader.right / grader.count}
        return StepResult(Observation(()), reward, scores)

    def _says(self) -> str:
        """The user's words at the beginning of a turn; functions that come late are shown with them."""
        assert self._entry is not None
        words = self._entry.turns[self._turn]
        late = self._entry.added.get(self._turn, ())
        if not late:
            return words
        specs = [spec for spec in self.tools() if spec.name in late]
        told = [{"name": s.name, "description": s.description, "parameters": s.parameters} for s in specs]
        lines = "\n".join(json.dumps(one) for one in told)
        return f"You have more functions now:\n{lines}\nWhat about now?{' ' if words else ''}{words}"

    def _key(self) -> str:
        """Equal where the APIs, the place in the conversation and all that the verdict depends on are equal."""
        grader = self._grader
        seen = sorted(self._known), sorted(self._responses)
        state = [self._task.id, self._turn, self._simulation.fingerprint(), seen, grader.right, bool(grader.wrong)]
        return sha256(json.dumps(state).encode()).hexdigest()[:24]


def _apis(category: Category) -> Iterator[str]:
    for name in entry_ids(category, "all"):
        yield from entry(name).classes


def _plain_calls(found: Entry, turn: int) -> list[Action]:
    apis = Simulation(found)
    return [call(made.name, **apis.arguments(made)) for made in calls_of(found.truth[turn])]


def _line(turns: Sequence[Sequence[Action]]) -> Iterator[Action]:
    for calls in turns:
        yield from calls
        yield say(_DONE if calls else _LACKING)

"""The environment `tool_desk`: an office behind four tools, its tasks, its oracle and its cheats.

Success is the final state of the office and the number told; how the agent came there is not judged.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import count
from typing import Any

from agentrl import Action, Env, Message, Observation, Task, ToolError, call, say, tool
from tool_desk.grading import partial_credit, succeeded, wrong_bookings
from tool_desk.request import KINDS, Level, Request, make_kind, make_request
from tool_desk.words import DAYS

TEST_TASKS = 256
_MAX_STEPS = {"easy": 4, "medium": 6, "hard": 9}


class ToolDesk(Env):
    """Fulfil an office request: look people and rooms up, compute, book, answer."""

    credit: float
    "Partial reward paid so far in this episode."
    runs_in = "loop"
    system = "Fulfil each request with the tools."

    def __init__(self, *, level: Level = "easy", shaped: bool = False, shots: int = 4) -> None:
        """level: easy (one lookup), medium (two lookups), hard (two lookups, a sum and a constraint).

        shaped: partial credit for right facts, below one half without success. shots: solved requests shown first.
        """
        if level not in KINDS:
            raise ValueError(f"level is {level!r}; tool_desk has {', '.join(KINDS)}.")
        if not 0 <= shots <= 4:
            raise ValueError(f"shots is {shots}; tool_desk shows 0 to 4 solved requests.")
        self.level, self.shaped = level, shaped
        self.max_steps = _MAX_STEPS[level]
        self.examples = [message for shot in range(shots) for message in _example(level, shot)]
        self._begin(make_request("train", level, 0))

    def tasks(self, split: str) -> Iterator[Task]:
        """train: endless. test: 256. They share no name, no number and no sentence."""
        if split not in ("train", "test"):
            raise ValueError(f"tool_desk has no split {split!r}; it has 'train' and 'test'.")
        for seed in range(TEST_TASKS) if split == "test" else count():
            request = make_request(split, self.level, seed)
            name = f"tool_desk-{self.level}-{split}-{seed}"
            yield Task(name, "tool_desk", seed, request.to_json(), split, (self.level, request.kind))

    def reset(self, task: Task) -> Observation:
        self._begin(Request.from_json(task.data))
        return Observation((*self.examples, Message("user", self.request.text)))

    @tool
    def find_person(self, name: str) -> str:
        """City, phone and boss of a person."""
        return self._try(self.desk.find_person, name)

    @tool
    def find_room(self, city: str) -> str:
        """Rooms in a city."""
        return self._try(self.desk.find_room, city)

    @tool
    def calculate(self, expression: str) -> str:
        """Value of a sum like 3 * 12."""
        return self._try(self.desk.calculate, expression)

    @tool
    def book(self, person: str, room: str, day: str) -> str:
        """Book a room for a person."""
        return self._try(self.desk.book, person, room, day)

    def answered(self, text: str) -> None:
        """Speaking is answering: it ends the episode."""
        self.desk.answer = text

    def done(self) -> bool:
        """A request that asks for no number is over with its booking."""
        return self.request.answer is None and bool(self.desk.bookings)

    def step_reward(self) -> float:
        """The change of the partial credit, so that its sum over an episode cannot be farmed."""
        if not self.shaped:
            return 0.0
        before = self.credit
        self.credit = partial_credit(self.request, self.desk) / 2
        return self.credit - before

    def reward(self) -> float:
        """1 in sum with success; without it what `step_reward` gave, at most one half."""
        return 1.0 - self.credit if self.success else 0.0

    def scores(self) -> dict[str, float]:
        return {
            "success": float(self.success),
            "partial": partial_credit(self.request, self.desk),
            "wrong_bookings": float(wrong_bookings(self.request, self.desk)),
        }

    @property
    def success(self) -> bool:
        return succeeded(self.request, self.desk)

    def state_key(self) -> str:
        return f"{self.fingerprint} {json.dumps(self.desk.state())}"

    def snapshot(self) -> dict[str, Any]:
        return {"request": self.request.to_json(), "desk": self.desk.state(), "credit": self.credit}

    def restore(self, snapshot: dict[str, Any]) -> None:
        self._begin(Request.from_json(snapshot["request"]))
        self.desk.set_state(snapshot["desk"])
        self.credit = snapshot["credit"]

    def oracle(self, task: Task) -> Iterator[Action]:
        """Reads, works out, books and answers through the tools."""
        yield from _solution(Request.from_json(task.data))

    def cheats(self, task: Task) -> dict[str, Iterable[Action]]:
        """None of them wins; some are right in part."""
        request = Request.from_json(task.data)
        numbers = [person.phone for person in request.people.values()]
        numbers += [room.price * hours for room in request.rooms.values() for hours in range(2, 7) if room.price]
        lookups = list(_lookups(request))
        cheats: dict[str, Iterable[Action]] = {
            "book_every_room": _book_every_room(request),
            "tell_every_number": [*lookups, say(" ".join(str(number) for number in numbers))],
            "say_done": [say("Done, everything is booked.")],
            "read_and_stop": [*lookups, say("done")],
            "read_again_and_again": (lookups[0] for _ in range(self.max_steps)),
        }
        if request.booking:
            cheats["tell_without_booking"] = [*lookups, say(f"It costs {request.answer or 10}, all is booked.")]
        return cheats

    def _begin(self, request: Request) -> None:
        self.request, self.desk = request, request.desk()
        self.credit = 0.0
        self.fingerprint = sha256(json.dumps(request.to_json()).encode()).hexdigest()[:12]

    def _try(self, work: Callable[..., str], *arguments: str) -> str:
        try:
            return work(*arguments)
        except ValueError as error:
            raise ToolError(str(error)) from None


_ARGUMENT = {"find_person": "name", "find_room": "city"}


def _lookups(request: Request) -> Iterator[Action]:
    for name, argument in request.lookups:
        yield call(name, **{_ARGUMENT[name]: argument})


def _solution(request: Request) -> Iterator[Action]:
    """The calls that fulfil a request, as a model would make them."""
    yield from _lookups(request)
    if request.expression:
        yield call("calculate", expression=request.expression)
    if request.booking:
        person, room, day = request.booking
        yield call("book", person=person, room=room, day=day)
    if request.answer is not None:
        yield say(str(request.answer))


def _book_every_room(request: Request) -> Iterator[Action]:
    """The right room too, after others; then the right answer."""
    person, right, day = request.booking or (next(iter(request.people)), "", DAYS[0])
    others = [room for room in request.rooms if room != right]
    yield from _lookups(request)
    for room in [*others[:2], *([right] if right else [])]:
        yield call("book", person=person, room=room, day=day)
    yield say(str(request.answer))


def _example(level: Level, shot: int) -> Iterator[Message]:
    """A solved request as a conversation, in the words that no task uses."""
    kinds = KINDS[level]
    request = make_kind("example", kinds[shot % len(kinds)], random.Random(f"example/{level}/{shot}"))
    desk = request.desk()
    yield Message("user", request.text)
    for action in _solution(request):
        yield action.message()
        for made in action.tool_calls:
            yield Message("tool", getattr(desk, made.name)(**made.arguments), name=made.name)

"""tool_desk: the requests, the rules of the office, and what earns a reward."""

from __future__ import annotations

import json
import random
import re
from functools import partial
from itertools import islice, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_desk.calculator import calculate
from tool_desk.desk import Desk, Person, Room
from tool_desk.env import ToolDesk
from tool_desk.grading import partial_credit, succeeded
from tool_desk.request import KINDS, Level, Request, make_request
from tool_desk.words import DAYS, VOCABULARIES

from agentrl import Task, call, say
from agentrl.environment import adapt
from agentrl.testing import assert_environment, play
from agentrl.types import StepResult

LEVELS: tuple[Level, ...] = ("easy", "medium", "hard")
BOOK = Request(
    "book",
    "A room for Ann in Oslo on Monday.",
    {"Ann": Person("Rome", 1234, "Bob"), "Bob": Person("Oslo", 2345, "Ann")},
    {"Cedar": Room("Oslo"), "Maple": Room("Rome")},
    (("find_room", "Oslo"),),
    booking=("Ann", "Cedar", "Monday"),
)
PHONE = Request("phone", "Ann's phone?", BOOK.people, BOOK.rooms, (("find_person", "Ann"),), answer=1234)


def a_task(request: Request) -> Task:
    return Task("t", "tool_desk", data=request.to_json())


def earned(results: list[StepResult]) -> float:
    return sum(result.reward for result in results)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("shaped", [False, True])
async def test_oracle_wins_every_task(level: Level, split: str, shaped: bool) -> None:
    for task in islice(ToolDesk(level=level).tasks(split), 100):
        results = await play(ToolDesk(level=level, shaped=shaped), task)
        assert results[-1].terminated and not any(result.policy_error for result in results)
        assert results[-1].scores == {"success": 1.0, "partial": 1.0, "wrong_bookings": 0.0}
        assert earned(results) == pytest.approx(1.0)
        assert len(results) == {"easy": 2, "medium": 3, "hard": 5}[level]


@pytest.mark.parametrize("level", LEVELS)
async def test_cheats_never_win_and_earn_less_than_half(level: Level) -> None:
    for task in islice(ToolDesk(level=level).tasks("train"), 12):
        for name in ToolDesk(level=level).cheats(task):
            env = ToolDesk(level=level, shaped=True)
            world = adapt(env)
            await world.reset(task)
            actions = list(env.cheats(task)[name])
            results = await play(env, task, actions)
            assert results[-1].terminated or results[-1].truncated, name
            assert results[-1].scores["success"] == 0.0, name
            assert earned(results) < 0.5, name


def test_splits_share_no_name() -> None:
    for one, other in permutations(VOCABULARIES.values(), 2):
        names = [{*words.people, *words.cities, *words.rooms} for words in (one, other)]
        assert names[0].isdisjoint(names[1])
    for words in VOCABULARIES.values():
        every = [*words.people, *words.cities, *words.rooms, *DAYS]
        assert len({name.casefold() for name in every}) == len(every)
        assert all(name.isalpha() for name in every)


def test_splits_share_no_three_words_of_phrasing() -> None:
    def runs(split: str) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for phrases in VOCABULARIES[split].phrasings.values():
            for phrase in phrases:
                tokens = re.findall(r"\{\w+\}|[\w']+", phrase.lower())
                triples = zip(tokens, tokens[1:], tokens[2:], strict=False)
                # A run of slots alone ("{person} in {city}") is no phrasing.
                found |= {triple for triple in triples if sum("{" not in token for token in triple) >= 2}
        return found

    assert runs("train") and runs("test")
    assert runs("train").isdisjoint(runs("test"))
    sentences = [sum(VOCABULARIES[name].phrasings.values(), ()) for name in ("train", "test", "example")]
    assert len(set(sum(sentences, ()))) == sum(map(len, sentences))


@pytest.mark.parametrize("level", LEVELS)
def test_tasks_of_the_splits_share_no_entity_and_no_text(level: Level) -> None:
    env = ToolDesk(level=level)
    train, test = list(islice(env.tasks("train"), 400)), list(env.tasks("test"))
    assert len(test) == 256 and len({task.id for task in [*train, *test]}) == 656

    def entities(tasks: list[Task]) -> set[object]:
        requests = [Request.from_json(task.data) for task in tasks]
        phones = {person.phone for request in requests for person in request.people.values()}
        names = {name for request in requests for name in [*request.people, *request.rooms]}
        cities = {room.city for request in requests for room in request.rooms.values()}
        return phones | names | cities | {request.text for request in requests}

    assert entities(train).isdisjoint(entities(test))


@pytest.mark.parametrize("level", LEVELS)
def test_every_request_is_sound(level: Level) -> None:
    for seed in range(300):
        request = make_request("train", level, seed)
        assert request.kind in KINDS[level] and "{" not in request.text
        assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request
        assert request == make_request("train", level, seed)
        if request.booking:
            person, room, day = request.booking
            assert person in request.people and day in DAYS and day in request.text
            assert (request.kind == "boss") != (person in request.text)
            city = request.lookups[-1][1]
            assert request.rooms[room].city == city
            assert room not in request.text, "the room must be looked up"
        if request.kind == "cost":
            (guests, *_) = [number for number in map(int, re.findall(r"\d+", request.text)) if number >= 8]
            fits = [name for name, r in request.rooms.items() if r.city == city and r.seats >= guests]
            assert fits == [room]
            assert str(request.answer) == calculate(request.expression) and str(request.answer) not in request.text


def test_prompt_shows_solved_requests_that_no_task_uses() -> None:
    env = ToolDesk(level="easy", shots=2)
    shown = env.reset(next(env.tasks("train"))).messages
    assert [message.role for message in shown] == [
        *("user", "assistant", "tool", "assistant", "tool"),
        *("user", "assistant", "tool", "assistant"),
        "user",
    ]
    assert shown[1].tool_calls[0].name == "find_room" and shown[3].tool_calls[0].name == "book"
    assert shown[6].tool_calls[0].name == "find_person" and shown[8].content in shown[7].content
    assert shown[-1].content == env.request.text
    bare = ToolDesk(shots=0)
    assert len(bare.reset(next(bare.tasks("train"))).messages) == 1


async def test_null_and_idle_agents_earn_nothing() -> None:
    for level in LEVELS:
        task = next(ToolDesk(level=level).tasks("train"))
        assert earned(await play(ToolDesk(level=level, shaped=True), task, [say("")])) == 0.0
        hopeless = [call("find_person", name="nobody"), call("find_room", city=""), call("calculate", expression="1")]
        results = await play(ToolDesk(level=level, shaped=True), task, hopeless * 5)
        assert results[-1].truncated and earned(results) == 0.0


async def test_wrong_calls_are_told_in_words() -> None:
    said = [
        (call("find_person", name="Zed"), "no person is called 'Zed'."),
        (call("find_room", city="Paris"), "there is no room in 'Paris'."),
        (call("book", person="Ann", room="Attic", day="Monday"), "no room is called 'Attic'."),
        (call("book", person="Ann", room="Cedar", day="Sunday"), "no day is called 'Sunday'."),
        (call("calculate", expression="2 ** 9"), "'2 ** 9' is not a sum; write one like '3 * 12'."),
    ]
    for action, text in said:
        (result,) = await play(ToolDesk(), a_task(BOOK), [action])
        assert result.policy_error == text and result.observation.messages[-1].content == text
        assert not result.terminated


async def test_a_room_is_booked_once_a_day() -> None:
    desk = BOOK.desk()
    assert desk.book("ann ", "CEDAR", "monday") == "booked"
    with pytest.raises(ValueError, match="room Cedar is already booked on Monday, for Ann"):
        desk.book("Bob", "Cedar", "Monday")
    desk.book("Bob", "Cedar", "Tuesday")
    assert desk.bookings == [("Ann", "Cedar", "Monday"), ("Bob", "Cedar", "Tuesday")]


async def test_one_booking_too_many_is_no_success() -> None:
    request = make_request("train", "hard", 3)
    assert request.booking
    person, room, day = request.booking
    other = next(name for name in request.rooms if name != room)
    line = [call("book", person=person, room=room, day=day), call("book", person=person, room=other, day=day)]
    results = await play(ToolDesk(level="hard"), a_task(request), [*line, say(str(request.answer))])
    assert results[-1].scores["success"] == 0.0 and results[-1].scores["wrong_bookings"] == 1.0
    results = await play(ToolDesk(level="hard"), a_task(request), [line[0], say(str(request.answer))])
    assert results[-1].scores["success"] == 1.0


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("1234", True),
        ("Ann's phone is 1234.", True),
        ("1234, yes 1234", True),
        ("1234 or 2345", False),
        ("12345", False),
        ("12 34", False),
        ("", False),
        ("1234" + "." * 400, False),
    ],
)
def test_an_answer_holds_the_number_and_no_other(text: str, right: bool) -> None:
    desk = PHONE.desk()
    desk.answer = text
    assert succeeded(PHONE, desk) is right
    desk.bookings.append(("Ann", "Cedar", "Monday"))
    assert not succeeded(PHONE, desk)


def test_partial_credit_counts_each_fact_once_and_the_latest_booking_only() -> None:
    desk = BOOK.desk()
    assert partial_credit(BOOK, desk) == 0.0
    for _ in range(3):
        desk.find_room("oslo")
        assert partial_credit(BOOK, desk) == pytest.approx(2 / 6)
    desk.find_room("Rome")
    desk.find_person("Ann")
    assert partial_credit(BOOK, desk) == pytest.approx(2 / 6)
    with pytest.raises(ValueError):
        desk.book("Ann", "Oslo", "Monday")
    assert partial_credit(BOOK, desk) == pytest.approx(4 / 6)
    with pytest.raises(ValueError):
        desk.book("Oslo", "Cedar", "Friday")
    assert partial_credit(BOOK, desk) == pytest.approx(3 / 6)
    desk.book("Ann", "Maple", "Monday")
    assert partial_credit(BOOK, desk) == pytest.approx(3 / 6), "two right words, less one wrong booking"
    desk.book("Ann", "Cedar", "Monday")
    assert partial_credit(BOOK, desk) == pytest.approx(5 / 6), "the wrong booking stays"


WORDS = st.sampled_from(["Ann", "Bob", "Cedar", "Maple", "Oslo", "Rome", "Monday", "Friday", "x", ""])
CALLS = st.one_of(
    st.builds(lambda name: ("find_person", (name,)), WORDS),
    st.builds(lambda city: ("find_room", (city,)), WORDS),
    st.builds(lambda a, b: ("calculate", (f"{a} * {b}",)), st.integers(0, 3), st.integers(0, 3)),
    st.builds(lambda person, room, day: ("book", (person, room, day)), WORDS, WORDS, WORDS),
)


def use(desk: Desk, made: tuple[str, tuple[str, ...]]) -> bool:
    """False where the desk refused."""
    try:
        getattr(desk, made[0])(*made[1])
    except ValueError:
        return False
    return True


@given(calls=st.lists(CALLS, max_size=12), shaped=st.booleans())
@settings(max_examples=60, deadline=None)
def test_rewards_are_bounded_whatever_is_called(calls: list[tuple[str, tuple[str, ...]]], shaped: bool) -> None:
    for request in (BOOK, PHONE):
        env = ToolDesk(shaped=shaped)
        env.reset(a_task(request))
        total = 0.0
        for made in calls:
            use(env.desk, made)
            total += env.step_reward()
            assert -1e-9 <= total <= 0.5 + 1e-9
        total += env.reward()
        assert total == pytest.approx(1.0) if env.success else total <= (0.5 if shaped else 0.0) + 1e-9


@given(calls=st.lists(CALLS, max_size=12))
@settings(max_examples=60, deadline=None)
def test_state_key_changes_exactly_when_the_state_does(calls: list[tuple[str, tuple[str, ...]]]) -> None:
    env = ToolDesk()
    env.reset(a_task(BOOK))
    for made in calls:
        key, state = env.state_key(), env.desk.state()
        use(env.desk, made)
        assert (env.state_key() == key) == (env.desk.state() == state)
        again = env.state_key()
        use(env.desk, made)
        assert env.state_key() == again, f"{made} twice"


@given(calls=st.lists(CALLS, max_size=10))
@settings(max_examples=40, deadline=None)
def test_snapshot_is_exact_and_shares_nothing(calls: list[tuple[str, tuple[str, ...]]]) -> None:
    first, second = ToolDesk(shaped=True), ToolDesk(shaped=True)
    first.reset(a_task(BOOK))
    for made in calls:
        use(first.desk, made)
        first.step_reward()
    kept: Any = json.loads(json.dumps(first.snapshot()))
    second.restore(kept)
    assert second.state_key() == first.state_key() and second.credit == first.credit
    assert second.request == first.request and second.snapshot() == kept
    for made in reversed(calls):
        use(second.desk, made)
    assert first.snapshot() == kept


async def test_a_restored_episode_goes_on_as_the_first_one() -> None:
    task = next(ToolDesk(level="hard").tasks("train"))
    env = ToolDesk(level="hard", shaped=True)
    first, second = adapt(env), adapt(ToolDesk(level="hard", shaped=True))
    await first.reset(task)
    line = list(env.oracle(task))
    for action in line[:2]:
        await first.step(action)
    await second.restore(await first.snapshot())  # type: ignore[attr-defined]
    for action in line[2:]:
        assert await first.step(action) == await second.step(action)


def test_state_keys_tell_requests_apart() -> None:
    env = ToolDesk()
    keys = set()
    for task in islice(env.tasks("train"), 50):
        env.reset(task)
        keys.add(env.state_key())
    assert len(keys) == 50


async def test_same_task_same_episode() -> None:
    task = next(ToolDesk(level="hard").tasks("train"))
    assert await play(ToolDesk(level="hard"), task) == await play(ToolDesk(level="hard"), task)


@pytest.mark.parametrize(
    ("expression", "value"),
    [("12 * 3", "36"), ("(1+2)/4", "0.75"), ("-7 // 2", "-4"), ("7 % 4", "3"), ("10 / 4 * 2", "5"), (" 5 ", "5")],
)
def test_calculator_works_sums_out(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        *("", "1/0", "5 % 0", "9**9", "__import__('os')", "1e3", "a + 1", "1 if 1 else 2", "(" * 50, "1 2", "0777"),
        *("1+" * 40 + "1", "\x00", "9" * 61),
    ],
)
def test_calculator_refuses_what_is_no_sum(expression: str) -> None:
    with pytest.raises(ValueError):
        calculate(expression)


@given(st.text(max_size=70))
@settings(max_examples=60, deadline=None)
def test_calculator_never_fails_otherwise(expression: str) -> None:
    try:
        assert isinstance(float(calculate(expression)), float)
    except ValueError as refused:
        assert str(refused)


def test_random_answers_do_not_help() -> None:
    rng = random.Random(0)
    env = ToolDesk(shaped=True)
    for task in islice(env.tasks("train"), 100):
        env.reset(task)
        env.answered(str(rng.randint(1000, 9999)))
        assert not env.success


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="easy, medium, hard"):
        ToolDesk(level="extreme")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shots is 9"):
        ToolDesk(shots=9)
    with pytest.raises(ValueError, match="'train' and 'test'"):
        next(ToolDesk().tasks("dev"))


@pytest.mark.parametrize("level", LEVELS)
def test_the_shipped_check_finds_it_sound(level: Level) -> None:
    assert_environment(partial(ToolDesk, level=level, shaped=True), tasks=4)

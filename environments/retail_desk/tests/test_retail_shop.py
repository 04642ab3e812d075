"""retail_desk's shop: its scenarios, books and rules, and the words that its customers and clerks are understood by."""

from __future__ import annotations

import json
import re
from random import Random

import msgspec
import pytest
from retail_desk.customer import ASKED
from retail_desk.generate import KINDS, Level, make_kind, make_scenario
from retail_desk.lines import QUESTIONS
from retail_desk.policy import late_refund, may_come_back
from retail_desk.records import Address
from retail_desk.scenario import Scenario
from retail_desk.shop import Shop
from retail_desk.talk import agrees, proposes, refuses
from retail_desk.voices import VOICES, Voice
from retail_desk.words import NAMES

LEVELS: tuple[Level, ...] = ("easy", "medium", "hard")


def test_splits_share_no_entity_and_no_number() -> None:
    train, test = NAMES["train"], NAMES["test"]
    for name in ("first", "last", "streets", "cities", "products"):
        assert set(getattr(train, name)).isdisjoint(getattr(test, name)), name
    values = [{value for options in names.options.values() for value in options} for names in (train, test)]
    assert values[0].isdisjoint(values[1]) and set(train.options).isdisjoint(test.options)
    for name in ("orders", "items", "parcels"):
        assert set(getattr(train, name)).isdisjoint(getattr(test, name)), name


def test_splits_share_no_sentence_and_no_four_words() -> None:
    def sentences(voice: Voice) -> list[str]:
        fields = (voice.wishes, voice.hints, voice.asks, voice.facts, voice.reasons, voice.talk)
        return [line for lines in fields for group in lines.values() for line in group]

    def runs(voice: Voice) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for line in sentences(voice):
            words = re.findall(r"\{\w+\}|[\w']+", line.lower())
            found |= set(zip(words, words[1:], words[2:], words[3:], strict=False))
        return found

    train, test = VOICES["train"], VOICES["test"]
    assert set(sentences(train)).isdisjoint(sentences(test))
    assert runs(train) and runs(test) and runs(train).isdisjoint(runs(test))
    for name in ("wishes", "hints", "asks", "facts", "reasons", "talk"):
        assert set(getattr(train, name)) == set(getattr(test, name)), name


def test_customers_of_both_splits_are_understood() -> None:
    for voice in VOICES.values():
        assert all(agrees(line) for line in voice.talk["yes"])
        others = [line for what, lines in voice.talk.items() if what not in ("yes", "second") for line in lines]
        assert not any(agrees(line) for line in [*others, *voice.facts["payment"]])
    for fact, question in QUESTIONS.items():
        assert [name for name, pattern in ASKED.items() if pattern.search(question)] == [fact]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("To look you up I need your full name and postal code.", ["name", "postcode"]),
        ("Could you tell me why you would like to cancel it?", ["reason"]),
        ("How would you like to receive the refund?", ["payment"]),
        ("What would you like to exchange it for?", ["options"]),
        ("Please provide the new address, with street and city.", ["address"]),
        ("Can you give me the order number, please?", ["order"]),
    ],
)
def test_questions_are_recognised_as_models_put_them(text: str, facts: list[str]) -> None:
    assert [name for name, pattern in ASKED.items() if pattern.search(text)] == facts


def test_every_kind_is_made_granted_and_refused_at_every_level() -> None:
    for level in LEVELS:
        seen = set()
        for seed in range(250):
            scenario = make_scenario("train", level, seed)
            assert Scenario.from_json(json.loads(json.dumps(scenario.to_json()))) == scenario
            assert scenario == make_scenario("train", level, seed)
            scenario.expected()
            assert len({goal.order for goal in scenario.goals}) == len(scenario.goals)
            for goal in scenario.goals:
                seen.add((goal.kind, any(change.tool == "refuse" for change in goal.changes)))
                assert "{" not in goal.wish and goal.order in scenario.books.orders
        never = ("track", "stranger", "injury")
        wanted = {(kind, False) for kind in KINDS[level]}
        if level != "easy":
            wanted |= {(kind, True) for kind in KINDS[level] if kind not in never}
        assert seen == wanted


def test_the_books_make_the_policy_decide() -> None:
    for seed in range(150):
        scenario = make_scenario("train", "hard", seed)
        books = scenario.books
        for goal in scenario.goals:
            order = books.orders[goal.order]
            refused = goal.changes and goal.changes[0].tool == "refuse"
            if goal.kind == "return":
                assert may_come_back(order.arrived, books.today) != bool(refused)
            if goal.kind in ("cancel", "readdress"):
                assert order.status == ("shipped" if refused else "pending")
            if goal.kind == "late":
                owed = late_refund(order.total, order.promised, order.arrived)
                assert bool(owed) != bool(refused)
                assert refused or goal.changes[0].arguments["amount"] == owed / 100
        namesakes = [c for c in books.customers.values() if c.name == scenario.name]
        assert len(namesakes) == 2 and len({c.address.postcode for c in namesakes}) == 2


@pytest.mark.parametrize(("late", "share"), [(-1, 0), (0, 0), (1, 5), (3, 5), (4, 10), (9, 10)])
def test_late_orders_earn_a_share(late: int, share: int) -> None:
    assert late_refund(2000, "2031-03-10", f"2031-03-{10 + late:02d}") == 20 * share


def test_the_shop_refuses_in_words_and_changes_nothing() -> None:
    scenario = make_kind("train", "medium", "return", Random(5))
    shop = Shop(scenario.books)
    goal = scenario.goals[0]
    order = shop.orders[goal.order]
    before = shop.snapshot()
    (first, second, gift) = shop.books.customers[order.customer].payments
    tries = [
        (lambda: shop.cancel(goal.order, "changed mind"), "is delivered; this needs a pending order"),
        (lambda: shop.give_back(goal.order, ["0"], first), "holds no item '0'"),
        (lambda: shop.give_back(goal.order, [], first), "items is empty"),
        (lambda: shop.give_back(goal.order, [order.lines[0].item] * 2, first), "holds no item"),
        (lambda: shop.give_back(goal.order, [order.lines[0].item], "cash"), "no payment method 'cash'"),
        (lambda: shop.swap(goal.order, order.lines[0].item, "1", first), "no other variant"),
        (lambda: shop.refund(goal.order, order.total + 1), "allowed is above 0, up to"),
        (lambda: shop.refund("12", 5), "there is no order '12'"),
        (lambda: shop.readdress(goal.order, Address("a", "b", "c")), "needs a pending order"),
    ]
    for attempt, words in tries:
        with pytest.raises(ValueError, match=words):
            attempt()
        assert shop.snapshot() == before
    assert shop.give_back(f"#{goal.order} ", [order.lines[0].item], gift) == order.lines[0].price
    assert shop.balances[gift] == shop.books.customers[order.customer].payments[gift].balance + order.lines[0].price
    assert second in shop.books.customers[order.customer].payments


def test_money_is_conserved_and_stock_counted() -> None:
    for seed in range(120):
        scenario = make_scenario("train", "hard", seed)
        before, after = Shop(scenario.books), scenario.expected()
        gift = sum(after.balances.values()) - sum(before.balances.values())
        assert gift == sum(cents for _, payment, cents in after.moved if payment in after.balances)
        cancelled = [o for o in after.orders.values() if o.status == "cancelled"]
        swapped = sum(line.state == "swapped" for o in after.orders.values() for line in o.lines)
        sold = sum(len(order.lines) for order in cancelled)
        assert sum(after.stock.values()) - sum(before.stock.values()) == sold - swapped


@pytest.mark.parametrize(
    ("text", "proposal"),
    [
        ("Shall I cancel order 12345?", True),
        ("I will refund order 12345. Is that okay?", True),
        ("Order 12345 will be cancelled, do you want that?", True),
        ("I can cancel order #12345. Please confirm.", True),
        ("To cancel order 12345, please reply 'yes' to proceed.", True),
        ("I cancel order 12345.", False),
        ("Shall I cancel order 123456?", False),
        ("Shall I cancel it?", False),
        ("What is wrong with order 12345?", False),
    ],
)
def test_a_proposal_is_a_question_that_names_the_order(text: str, proposal: bool) -> None:
    assert proposes(text, "12345") is proposal


@pytest.mark.parametrize("text", ["No, thanks.", "Not yes.", "Wait.", "What? Yes?", "I do not agree.", ""])
def test_what_is_no_yes(text: str) -> None:
    assert not agrees(text)


def test_a_broken_scenario_names_the_place() -> None:
    data = make_scenario("train", "easy", 0).to_json()
    data["goals"][0]["changes"] = [{"tool": "cancel_order", "arguments": 3}]
    with pytest.raises(msgspec.ValidationError, match=r"goals\[0\]\.changes\[0\]\.arguments|goals\[...\]"):
        Scenario.from_json(data)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("I am sorry, that is too late.", True),
        ("This can't be returned any more.", True),
        ("There is no exception.", True),
        ("Yes, of course. It is all done.", False),
        ("Thank you, goodbye.", False),
    ],
)
def test_a_refusal_is_told_in_words(text: str, refusal: bool) -> None:
    assert refuses(text) is refusal

"""Makes a scenario from split, level and seed: the same three give the same scenario.

easy: one granted wish, told with all its facts, no yes needed. medium: one wish, granted or refused, facts when asked.
hard: two wishes, a customer who tells little, a namesake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Literal

from retail_desk.goals import GOALS, Maker
from retail_desk.records import money
from retail_desk.scenario import Goal, Scenario
from retail_desk.stock import StockRoom
from retail_desk.voices import VOICES
from retail_desk.words import NAMES

Level = Literal["easy", "medium", "hard"]
KINDS: Mapping[Level, tuple[str, ...]] = {
    "easy": ("cancel", "return", "readdress", "repay", "track"),
    "medium": ("cancel", "return", "exchange", "readdress", "repay", "late", "track", "stranger", "injury"),
    "hard": ("cancel", "return", "exchange", "readdress", "repay", "late", "track", "stranger", "injury"),
}
ENDING = ("stranger", "injury")
"Kinds that hand the conversation to a person: nothing comes after them."


def make_scenario(split: str, level: Level, seed: int) -> Scenario:
    rng = Random(f"{split}/{level}/{seed}")
    return make_kind(split, level, rng.choice(KINDS[level]), rng)


def make_kind(split: str, level: Level, kind: str, rng: Random) -> Scenario:
    """A scenario whose first wish is of that kind."""
    voice, room = VOICES[split], StockRoom(rng, NAMES[split])
    room.add_products(4)
    caller = room.add_customer()
    others = [room.add_customer(), room.add_customer()]
    if level == "hard":
        others.append(room.add_customer(room.customers[caller].name))
    for other in others:
        room.add_order(other, rng.choice(("pending", "shipped", "delivered")))
    owner = others[0] if kind == "stranger" else caller
    shy = level == "hard" and kind != "stranger" and rng.random() < 0.5
    goals = [GOALS[kind](Maker(room, voice, owner, shy), level == "easy" or rng.random() < 0.6)]
    if shy:
        # The thing must tell the order apart from the customer's other ones.
        room.avoid.add(room.product_of(room.orders[goals[0].order].lines[0].item).name)
    if level == "hard" and kind not in ENDING:
        second = rng.choice([name for name in KINDS["hard"] if name not in (kind, *ENDING)])
        goals.append(GOALS[second](Maker(room, voice, caller, False), rng.random() < 0.6))
    # A bystander of the same customer.
    room.add_order(caller, rng.choice(("pending", "delivered")), arrived_ago=rng.randint(3, 60))
    name, address = room.customers[caller].name, room.customers[caller].address
    postcode = room.address().postcode if kind == "stranger" else address.postcode
    told = {
        "name": rng.choice(voice.facts["name"]).format(name=name),
        "postcode": rng.choice(voice.facts["postcode"]).format(postcode=postcode),
    }
    if level == "easy":
        return _plain(Scenario(room.books(), name, postcode, told, tuple(goals), split, 3), rng)
    hello = [rng.choice(voice.talk["hello"]), *([rng.choice(voice.talk["chatter"])] if rng.random() < 0.3 else [])]
    return Scenario(
        books=room.books(),
        name=name,
        postcode=postcode,
        caller=told,
        goals=tuple(goals),
        voice=split,
        patience=rng.choice((3, 4, 5)),
        terse=rng.random() < 0.4,
        secrets=_secrets(room, caller, goals, told),
        opening=" ".join([*hello, goals[0].wish]),
    )


def _plain(scenario: Scenario, rng: Random) -> Scenario:
    """The customer tells everything at once and no yes is needed."""
    (goal,) = scenario.goals
    facts = [sentence for name, sentence in goal.facts.items() if name != "order"]
    goal = replace(goal, wish=" ".join([goal.wish, *facts]), told=tuple(goal.facts))
    opening = " ".join([rng.choice(VOICES[scenario.voice].talk["hello"]), *scenario.caller.values(), goal.wish])
    return replace(scenario, goals=(goal,), consent=False, introduced=True, opening=opening)


def _secrets(room: StockRoom, caller: str, goals: Sequence[Goal], told: Mapping[str, str]) -> tuple[str, ...]:
    """What belongs to others and the customer does not say: of an order asked about by a stranger, all there is."""
    first = room.orders[goals[0].order]
    secrets = [first.address.street, first.promised, money(first.total)] if first.customer != caller else []
    own = room.customers[caller].address
    for key, customer in room.customers.items():
        if key != caller:
            secrets += [customer.address.street, customer.address.postcode]
    secrets += [order.tracking for order in room.orders.values() if order.customer != caller and order.tracking]
    said = " ".join([str(own), *told.values(), *(fact for goal in goals for fact in goal.facts.values())])
    return tuple(dict.fromkeys(secret for secret in secrets if secret not in said))

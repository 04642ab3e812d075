"""A scenario: the shop's books, who calls, what they want, and the changes that serve them.

It is JSON, so that a task carries all of it and a file of your own scenarios works too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from retail_desk.records import Address, Books
from retail_desk.shop import Shop

AskKind = Literal["amount", "day", "code"]


@dataclass(frozen=True, slots=True)
class Change:
    """A call of a tool that changes the shop."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of the customer, answered when one value of its kind is told."""

    kind: AskKind
    right: str
    question: str


@dataclass(frozen=True, slots=True)
class Goal:
    kind: str
    order: str
    wish: str
    "What the customer says first."
    changes: tuple[Change, ...] = ()
    "What serves the wish; none where only a question is asked."
    facts: Mapping[str, str] = field(default_factory=dict)
    "What the customer answers when asked, by the name of the fact."
    told: tuple[str, ...] = ()
    "Facts that the wish holds already."
    ask: Ask | None = None
    second: str = ""
    "What the customer says when told that the first choice cannot be had."
    insist: str = ""
    "What the customer says once when refused."

    @property
    def refused(self) -> bool:
        """The policy refuses the wish."""
        return any(change.tool == "refuse" for change in self.changes)


@dataclass(frozen=True, slots=True)
class Scenario:
    books: Books
    name: str
    postcode: str
    "As the customer tells them; a stranger's are in no record together."
    caller: Mapping[str, str]
    "The sentences that tell name and postcode."
    goals: tuple[Goal, ...]
    voice: str
    "Whose phrases the customer uses: `train` or `test`."
    patience: int
    "Turns in a row that may lead nowhere before the customer leaves."
    terse: bool = False
    "Answers one question a turn."
    consent: bool = True
    "The policy wants a yes before each change."
    introduced: bool = False
    "The first words hold name and postcode."
    secrets: tuple[str, ...] = ()
    "What must not be told."
    opening: str = ""

    def expected(self) -> Shop:
        """The shop after exactly the right changes. Raises `ValueError` where one of them is impossible."""
        shop = Shop(self.books)
        for goal in self.goals:
            for change in goal.changes:
                perform(shop, change)
        return shop

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scenario:
        """Raises `msgspec.ValidationError` with the path of what is wrong."""
        return msgspec.convert(dict(data), cls)


def perform(shop: Shop, change: Change) -> None:
    """The change in the shop. Raises `ValueError` where it is refused."""
    given = dict(change.arguments)
    number = given.pop("order")
    match change.tool:
        case "cancel_order":
            shop.cancel(number, given["reason"])
        case "return_items":
            shop.give_back(number, given["items"], given["payment"])
        case "exchange_item":
            shop.swap(number, given["item"], given["new_item"], given["payment"])
        case "change_address":
            shop.readdress(number, Address(given["street"], given["city"], given["postcode"]))
        case "change_payment":
            shop.repay(number, given["payment"])
        case "refund":
            shop.refund(number, round(given["amount"] * 100))
        case "refuse":
            shop.refuse(number, given["reason"])
        case "escalate":
            shop.escalate(number, given["reason"])
        case _:
            raise ValueError(f"no tool of the desk is called {change.tool!r}.")

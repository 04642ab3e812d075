"""What the shop knows at the start of an episode: products, customers, orders. Frozen, and JSON by msgspec.

Money is whole cents, days are ISO dates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Status = Literal["pending", "shipped", "delivered", "cancelled"]
CancelReason = Literal["changed mind", "ordered by mistake", "found elsewhere"]
Refusal = Literal["already shipped", "too late", "out of stock", "not covered", "not late"]
Escalation = Literal["identity", "injury", "lawyer"]


@dataclass(frozen=True, slots=True)
class Variant:
    options: Mapping[str, str]
    "Such as colour and size."
    price: int
    stock: int


@dataclass(frozen=True, slots=True)
class Product:
    name: str
    variants: Mapping[str, Variant]
    "By item number."


@dataclass(frozen=True, slots=True)
class Payment:
    kind: Literal["card", "gift card"]
    digits: str
    "The last four, as the customer knows them."
    balance: int = 0
    "Of a gift card."


@dataclass(frozen=True, slots=True)
class Address:
    street: str
    city: str
    postcode: str

    def __str__(self) -> str:
        return f"{self.street}, {self.city}, {self.postcode}"


@dataclass(frozen=True, slots=True)
class Customer:
    name: str
    address: Address
    payments: Mapping[str, Payment]
    "By the shop's name for them."


@dataclass(frozen=True, slots=True)
class Line:
    item: str
    price: int
    state: Literal["sold", "returned", "swapped"] = "sold"


@dataclass(frozen=True, slots=True)
class Order:
    customer: str
    status: Status
    lines: tuple[Line, ...]
    payment: str
    address: Address
    placed: str
    promised: str
    arrived: str = ""
    "Empty where it has not."
    tracking: str = ""
    reason: str = ""
    "Why it was cancelled."
    refused: tuple[Refusal, ...] = ()
    "Reasons noted by the desk, sorted."

    @property
    def total(self) -> int:
        return sum(line.price for line in self.lines)


@dataclass(frozen=True, slots=True)
class Books:
    """The whole database of a scenario."""

    today: str
    products: Mapping[str, Product]
    customers: Mapping[str, Customer]
    orders: Mapping[str, Order]


def money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"

"""One function for each kind of wish: adds the order that it is about and says what serves it.

`allowed` chooses between a wish that the policy grants and one that it refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from retail_desk.policy import RETURN_DAYS, late_refund
from retail_desk.records import CancelReason, Order, Payment, money
from retail_desk.scenario import Ask, Change, Goal
from retail_desk.stock import StockRoom
from retail_desk.voices import Voice


@dataclass(frozen=True, slots=True)
class Maker:
    """What the functions below need: where to write, how to speak, for whom."""

    room: StockRoom
    voice: Voice
    customer: str
    shy: bool
    "The wish names the thing and not the order."

    def goal(self, kind: str, order: str, changes: list[Change], **more: Any) -> Goal:
        rng = self.room.rng
        facts = more.pop("facts", {})
        thing = self.thing(order)
        wishes = self.voice.hints if self.shy else self.voice.wishes
        wish = rng.choice(wishes[kind]).format(order=order, thing=thing)
        ask: Ask | None = more.get("ask")
        number = self.line("no_order", thing=thing) if self.shy else self.line("order", order=order)
        return Goal(
            kind,
            order,
            f"{wish} {ask.question}" if ask else wish,
            tuple(changes),
            {"order": number, **facts},
            told=() if self.shy else ("order",),
            **more,
        )

    def line(self, fact: str, **slots: str) -> str:
        return self.room.rng.choice(self.voice.facts[fact]).format(**slots)

    def ask(self, name: str, kind: str, right: str) -> Ask:
        return Ask(cast(Any, kind), right, self.room.rng.choice(self.voice.asks[name]))

    def thing(self, order: str) -> str:
        """The first thing of the order."""
        return self.room.product_of(self.order(order).lines[0].item).name

    def order(self, number: str) -> Order:
        return self.room.orders[number]

    def options(self, item: str) -> str:
        return " and ".join(self.room.product_of(item).variants[item].options.values())

    def payment(self, *, gift: bool = False, first: bool = False) -> tuple[str, Payment]:
        """The customer's gift card, the card that orders are paid with, or the other card."""
        methods = list(self.room.customers[self.customer].payments.items())
        return methods[2] if gift else methods[0] if first else methods[1]

    def refuse(self, order: str, reason: str) -> list[Change]:
        return [Change("refuse", {"order": order, "reason": reason})]

    def insist(self) -> str:
        return self.room.rng.choice(self.voice.talk["insist"])


def cancel(maker: Maker, allowed: bool) -> Goal:
    rng = maker.room.rng
    order = maker.room.add_order(maker.customer, "pending" if allowed else "shipped", lines=rng.randint(1, 2))
    reason = rng.choice(get_args(CancelReason))
    facts = {"reason": rng.choice(maker.voice.reasons[reason])}
    if not allowed:
        return maker.goal("cancel", order, maker.refuse(order, "already shipped"), facts=facts, insist=maker.insist())
    changes = [Change("cancel_order", {"order": order, "reason": reason})]
    ask = maker.ask("back", "amount", money(maker.order(order).total))
    return maker.goal("cancel", order, changes, facts=facts, ask=ask)


def give_back(maker: Maker, allowed: bool) -> Goal:
    rng = maker.room.rng
    ago = rng.randint(3, RETURN_DAYS - 1) if allowed else rng.randint(RETURN_DAYS + 2, 70)
    order = maker.room.add_order(maker.customer, "delivered", lines=2, arrived_ago=ago)
    line = maker.order(order).lines[0]
    name, payment = maker.payment(gift=rng.random() < 0.5, first=rng.random() < 0.5)
    thing = maker.thing(order)
    facts = {
        "item": maker.line("item", thing=thing, options=maker.options(line.item)),
        "payment": maker.line("payment", payment=_said(payment)),
    }
    if not allowed:
        return maker.goal("return", order, maker.refuse(order, "too late"), facts=facts, insist=maker.insist())
    changes = [Change("return_items", {"order": order, "items": [line.item], "payment": name})]
    return maker.goal("return", order, changes, facts=facts, ask=maker.ask("back", "amount", money(line.price)))


def exchange(maker: Maker, allowed: bool) -> Goal:
    """Where allowed, half of the time only the second choice is there; otherwise neither."""
    room, rng = maker.room, maker.room.rng
    order = room.add_order(maker.customer, "delivered", arrived_ago=rng.randint(3, RETURN_DAYS - 1))
    line = maker.order(order).lines[0]
    others = [item for item in room.product_of(line.item).variants if item != line.item]
    first, second = rng.sample(others, 2)
    name, payment = maker.payment(first=rng.random() < 0.5)
    facts = {
        "item": maker.line("item", thing=maker.thing(order), options=maker.options(line.item)),
        "options": maker.line("options", options=maker.options(first)),
        "payment": maker.line("payment", payment=_said(payment)),
    }
    if not allowed:
        room.sell_out(first)
        stop = rng.choice(maker.voice.talk["stop"])
        return maker.goal("exchange", order, maker.refuse(order, "out of stock"), facts=facts, second=stop)
    fallback = ""
    wanted = first
    if rng.random() < 0.5:
        room.sell_out(first)
        wanted = second
        fallback = rng.choice(maker.voice.talk["second"]).format(options=maker.options(second))
    price = room.product_of(wanted).variants[wanted].price
    changes = [
        Change("exchange_item", {"order": order, "item": line.item, "new_item": wanted, "payment": name}),
    ]
    ask = maker.ask("difference", "amount", money(abs(price - line.price)))
    return maker.goal("exchange", order, changes, facts=facts, ask=ask, second=fallback)


def readdress(maker: Maker, allowed: bool) -> Goal:
    order = maker.room.add_order(maker.customer, "pending" if allowed else "shipped")
    address = maker.room.address()
    facts = {"address": maker.line("address", address=str(address))}
    if not allowed:
        refusal = maker.refuse(order, "already shipped")
        return maker.goal("readdress", order, refusal, facts=facts, insist=maker.insist())
    arguments = {"order": order, "street": address.street, "city": address.city, "postcode": address.postcode}
    return maker.goal("readdress", order, [Change("change_address", arguments)], facts=facts)


def repay(maker: Maker, allowed: bool) -> Goal:
    order = maker.room.add_order(maker.customer, "pending")
    name, payment = maker.payment(gift=not allowed)
    facts = {"payment": maker.line("payment", payment=_said(payment))}
    if not allowed:
        return maker.goal("repay", order, maker.refuse(order, "not covered"), facts=facts, insist=maker.insist())
    return maker.goal("repay", order, [Change("change_payment", {"order": order, "payment": name})], facts=facts)


def late(maker: Maker, allowed: bool) -> Goal:
    rng = maker.room.rng
    days = rng.choice((1, 2, 3, 5, 6, 8)) if allowed else rng.choice((-2, -1, 0))
    order = maker.room.add_order(maker.customer, "delivered", lines=rng.randint(1, 2), late=days)
    if not allowed:
        return maker.goal("late", order, maker.refuse(order, "not late"), insist=maker.insist())
    record = maker.order(order)
    cents = late_refund(record.total, record.promised, record.arrived)
    changes = [Change("refund", {"order": order, "amount": cents / 100})]
    return maker.goal("late", order, changes, ask=maker.ask("back", "amount", money(cents)))


def track(maker: Maker, allowed: bool) -> Goal:
    """A question; there is nothing to refuse."""
    rng = maker.room.rng
    order = maker.room.add_order(maker.customer, "shipped", lines=2)
    record = maker.order(order)
    what = rng.choice(("promised", "tracking", "total"))
    right = {"promised": record.promised, "tracking": record.tracking, "total": money(record.total)}[what]
    kind = {"promised": "day", "tracking": "code", "total": "amount"}[what]
    return maker.goal("track", order, [], ask=maker.ask(what, kind, right))


def stranger(maker: Maker, allowed: bool) -> Goal:
    """Somebody asks about an order of another customer and cannot be found; `allowed` plays no part."""
    order = maker.room.add_order(maker.customer, "shipped")
    return maker.goal("stranger", order, [Change("escalate", {"order": order, "reason": "identity"})])


def injury(maker: Maker, allowed: bool) -> Goal:
    """To be handed over, although it looks like a return; `allowed` plays no part."""
    order = maker.room.add_order(maker.customer, "delivered", arrived_ago=maker.room.rng.randint(3, 20))
    return maker.goal("injury", order, [Change("escalate", {"order": order, "reason": "injury"})])


GOALS: Mapping[str, Callable[[Maker, bool], Goal]] = {
    "cancel": cancel,
    "return": give_back,
    "exchange": exchange,
    "readdress": readdress,
    "repay": repay,
    "late": late,
    "track": track,
    "stranger": stranger,
    "injury": injury,
}


def _said(payment: Payment) -> str:
    return f"{payment.kind} ending {payment.digits}"

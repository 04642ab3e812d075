"""The shop in one episode: what the desk can look up and change.

It enforces what is technically possible and not the policy. A call that is refused raises `ValueError` in words for
the model and changes nothing; the state does not depend on the order of independent changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from retail_desk.records import Address, Books, Customer, Line, Order, Payment, Product, Refusal, money

Change = tuple[str, str]
"Tool and order of a call that changed something."


class Shop:
    def __init__(self, books: Books) -> None:
        self.books = books
        self.orders = dict(books.orders)
        self.balances = {
            name: payment.balance
            for customer in books.customers.values()
            for name, payment in customer.payments.items()
            if payment.kind == "gift card"
        }
        self.stock = {item: v.stock for product in books.products.values() for item, v in product.variants.items()}
        self.moved: list[tuple[str, str, int]] = []
        "Order, payment, cents; above 0 what goes back to the customer."
        self.escalated: tuple[str, str] | None = None
        "Order and reason."
        self.changes: list[Change] = []
        "In the order in which they were made; not part of the state that is graded."

    def find_customer(self, name: str, postcode: str) -> tuple[str, Customer] | None:
        """Both must be right; spelling of case and spaces aside."""
        for key, customer in self.books.customers.items():
            if same_words(customer.name, name) and same_words(customer.address.postcode, postcode):
                return key, customer
        return None

    def order(self, number: str) -> Order:
        found = self.orders.get(number.strip().lstrip("#"))
        if found is None:
            raise ValueError(f"there is no order {_short(number)}.")
        return found

    def product(self, name: str) -> Product:
        for product in self.books.products.values():
            if same_words(product.name, name):
                return product
        known = ", ".join(product.name for product in self.books.products.values())
        raise ValueError(f"there is no product {_short(name)}; there are: {known}.")

    def cancel(self, number: str, reason: str) -> int:
        """The cents that go back to where they came from."""
        order = self._in_state(number, "pending")
        self._put(number, replace(order, status="cancelled", reason=reason))
        for line in order.lines:
            self.stock[line.item] += 1
        self._pay(number, order.payment, order.total)
        self.changes.append(("cancel_order", _key(number)))
        return order.total

    def give_back(self, number: str, items: Sequence[str], payment: str) -> int:
        """Items of a delivered order; the cents that go to `payment`."""
        order = self._in_state(number, "delivered")
        self._method(order, payment)
        lines = list(order.lines)
        cents = 0
        for item in items:
            place = _place(lines, item, number)
            cents += lines[place].price
            lines[place] = replace(lines[place], state="returned")
        if not items:
            raise ValueError("items is empty; name at least one item number.")
        self._put(number, replace(order, lines=tuple(lines)))
        self._pay(number, payment, cents)
        self.changes.append(("return_items", _key(number)))
        return cents

    def swap(self, number: str, item: str, other: str, payment: str) -> int:
        """The cents of the difference: above 0 go back to `payment`, below 0 are taken from it."""
        order = self._in_state(number, "delivered")
        lines = list(order.lines)
        place = _place(lines, item, number)
        product = self._product_of(item)
        variant = product.variants.get(other)
        if variant is None or other == item:
            allowed = ", ".join(name for name in product.variants if name != item)
            raise ValueError(f"item {_short(other)} is no other variant of {product.name}; there are {allowed}.")
        if not self.stock[other]:
            raise ValueError(f"item {other} is out of stock.")
        self._method(order, payment)
        difference = lines[place].price - variant.price
        self._covers(payment, -difference)
        lines[place] = Line(other, variant.price, "swapped")
        self.stock[other] -= 1
        self._put(number, replace(order, lines=tuple(lines)))
        if difference:
            self._pay(number, payment, difference)
        self.changes.append(("exchange_item", _key(number)))
        return difference

    def readdress(self, number: str, address: Address) -> None:
        order = self._in_state(number, "pending")
        if address == order.address:
            raise ValueError(f"order {number} goes there already.")
        self._put(number, replace(order, address=address))
        self.changes.append(("change_address", _key(number)))

    def repay(self, number: str, payment: str) -> None:
        """Another payment method for a pending order; what was paid goes back."""
        order = self._in_state(number, "pending")
        self._method(order, payment)
        if payment == order.payment:
            raise ValueError(f"order {number} is paid with {payment} already.")
        self._covers(payment, order.total)
        self._put(number, replace(order, payment=payment))
        self._pay(number, order.payment, order.total)
        self._pay(number, payment, -order.total)
        self.changes.append(("change_payment", _key(number)))

    def refund(self, number: str, cents: int) -> None:
        """A goodwill refund to the payment method of the order."""
        order = self._in_state(number, "delivered")
        if not 0 < cents <= order.total:
            raise ValueError(f"the amount is {money(max(cents, 0))}; allowed is above 0, up to {money(order.total)}.")
        self._pay(number, order.payment, cents)
        self.changes.append(("refund", _key(number)))

    def refuse(self, number: str, reason: Refusal) -> None:
        order = self.order(number)
        if reason in order.refused:
            raise ValueError(f"that is noted on order {number} already.")
        self._put(number, replace(order, refused=tuple(sorted((*order.refused, reason)))))
        self.changes.append(("refuse", _key(number)))

    def escalate(self, number: str, reason: str) -> None:
        self.order(number)
        self.escalated = (_key(number), reason)
        self.changes.append(("escalate", _key(number)))

    def method(self, number: str, name: str) -> Payment:
        return self._method(self.order(number), name)

    def state(self) -> dict[str, Any]:
        """What is graded: everything that the desk can change, as JSON."""
        changed = {key: order for key, order in self.orders.items() if order != self.books.orders[key]}
        return {
            "orders": msgspec.json.decode(msgspec.json.encode(changed)),
            "balances": dict(self.balances),
            "stock": dict(self.stock),
            "moved": sorted(list(entry) for entry in self.moved),
            "escalated": list(self.escalated) if self.escalated else None,
        }

    def snapshot(self) -> dict[str, Any]:
        return {**self.state(), "changes": [list(change) for change in self.changes]}

    def restore(self, state: Mapping[str, Any]) -> None:
        changed = msgspec.convert(state["orders"], dict[str, Order])
        self.orders = {**self.books.orders, **changed}
        self.balances, self.stock = dict(state["balances"]), dict(state["stock"])
        self.moved = [(order, payment, cents) for order, payment, cents in state["moved"]]
        self.escalated = tuple(state["escalated"]) if state["escalated"] else None
        self.changes = [(tool, order) for tool, order in state["changes"]]

    def _in_state(self, number: str, status: str) -> Order:
        order = self.order(number)
        if order.status != status:
            raise ValueError(f"order {number} is {order.status}; this needs a {status} order.")
        return order

    def _put(self, number: str, order: Order) -> None:
        self.orders[_key(number)] = order

    def _method(self, order: Order, name: str) -> Payment:
        payments = self.books.customers[order.customer].payments
        if name not in payments:
            raise ValueError(f"the customer has no payment method {_short(name)}; there are {', '.join(payments)}.")
        return payments[name]

    def _covers(self, payment: str, cents: int) -> None:
        if payment in self.balances and cents > self.balances[payment]:
            raise ValueError(f"{payment} holds {money(self.balances[payment])}; {money(cents)} is needed.")

    def _pay(self, number: str, payment: str, cents: int) -> None:
        self.moved.append((_key(number), payment, cents))
        if payment in self.balances:
            self.balances[payment] += cents

    def _product_of(self, item: str) -> Product:
        return next(product for product in self.books.products.values() if item in product.variants)


def _place(lines: Sequence[Line], item: str, number: str) -> int:
    for place, line in enumerate(lines):
        if line.item == item and line.state == "sold":
            return place
    held = ", ".join(line.item for line in lines if line.state == "sold") or "none"
    raise ValueError(f"order {number} holds no item {_short(item)} that could be sent back; it holds {held}.")


def _key(number: str) -> str:
    return number.strip().lstrip("#")


def same_words(a: str, b: str) -> bool:
    return "".join(a.split()).casefold() == "".join(b.split()).casefold()


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")

"""The environment `retail_desk`: the shop behind eleven tools, and a customer who talks.

What the model writes without a call is said to the customer; the customer, or an escalation, ends the episode.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import count
from typing import Any, TypeVar

from agentrl import Action, Env, Message, Observation, Task, ToolError, tool
from retail_desk import lines
from retail_desk.customer import Customer, ScriptedCustomer
from retail_desk.generate import KINDS, Level, make_scenario
from retail_desk.grading import Grade, grade
from retail_desk.policy import policy
from retail_desk.records import Address, CancelReason, Escalation, Order, Refusal, money
from retail_desk.scenario import Scenario
from retail_desk.shop import Shop, same_words
from retail_desk.talk import Talk

T = TypeVar("T")
TEST_TASKS = 256
_MAX_STEPS: Mapping[Level, int] = {"easy": 8, "medium": 18, "hard": 30}


class RetailDesk(Env):
    """Serve a customer of a shop by its policy: look up, cancel, return, exchange, refund, refuse, hand over."""

    credit: float
    "Partial reward paid so far in this episode."
    runs_in = "loop"
    step_deadline = 180.0

    def __init__(
        self,
        *,
        level: Level = "easy",
        shaped: bool = False,
        user_url: str = "",
        user_model: str = "",
        user_key_env: str = "OPENAI_API_KEY",
    ) -> None:
        """level: easy (one wish, told in full), medium (one wish, asked out), hard (two wishes, little told).

        shaped: partial credit for right facts, below one half without success. user_url: an OpenAI-compatible chat API
        (".../v1") whose `user_model` plays the customer; the scripted customer where it is empty. user_key_env: the
        environment variable that holds its key.
        """
        if level not in KINDS:
            raise ValueError(f"level is {level!r}; retail_desk has {', '.join(KINDS)}.")
        if bool(user_url) != bool(user_model):
            raise ValueError(
                f"user_url is {user_url!r} and user_model {user_model!r}; a model that plays the customer needs both."
            )
        self.level: Level = level
        self.shaped = shaped
        self.max_steps = _MAX_STEPS[level]
        self._played_by = (user_url, user_model, user_key_env)
        self._begin(make_scenario("train", level, 0))

    def tasks(self, split: str) -> Iterator[Task]:
        """train: endless. test: 256. They share no name, no number and no sentence of a customer."""
        if split not in ("train", "test"):
            raise ValueError(f"retail_desk has no split {split!r}; it has 'train' and 'test'.")
        for seed in range(TEST_TASKS) if split == "test" else count():
            scenario = make_scenario(split, self.level, seed)
            kinds = tuple(goal.kind for goal in scenario.goals)
            name = f"retail_desk-{self.level}-{split}-{seed}"
            yield Task(name, "retail_desk", seed, scenario.to_json(), split, (self.level, *kinds))

    async def reset(self, task: Task) -> Observation:
        await self.customer.close()
        self._begin(Scenario.from_json(task.data))
        rules = f"{policy(consent=self.scenario.consent)}\nToday is {self.scenario.books.today}."
        return Observation((Message("system", rules), Message("user", self.scenario.opening)))

    @tool
    def find_customer(self, name: str, postcode: str) -> str:
        """Find a customer by name and postcode: address, payment methods, numbers of the orders."""
        found = self.shop.find_customer(name, postcode)
        told = self.talk.heard(self.scenario.opening, name, postcode)
        if found is None:
            self.talk.missed |= told and same_words(postcode, self.scenario.postcode)
            return "no customer has that name and that postcode."
        key, customer = found
        # A postcode that was read from an order proves nobody's identity.
        if told:
            self.talk.found.add(key)
        methods = ", ".join(self._method(method) for method in customer.payments)
        orders = ", ".join(number for number, order in self.shop.orders.items() if order.customer == key)
        return f"{customer.name}, {customer.address}\npayment methods: {methods}\norders: {orders}"

    @tool
    def show_order(self, order: str) -> str:
        """Items, prices, dates, payment and state of an order."""
        record = self._try(self.shop.order, order)
        self.talk.seen.add(order.strip().lstrip("#"))
        return self._describe(order, record)

    @tool
    def show_product(self, product: str) -> str:
        """Variants of a product with item number, price and stock."""
        found = self._try(self.shop.product, product)
        self.talk.seen.add(found.name)
        rows = [
            f"item {item}: {_options(v.options)}, {money(v.price)}, {self.shop.stock[item] or 'none'} in stock"
            for item, v in found.variants.items()
        ]
        return "\n".join([found.name, *rows])

    @tool
    def cancel_order(self, order: str, reason: CancelReason) -> str:
        """Cancel a pending order; the money goes back to its payment method."""
        cents = self._change(order, lambda: self.shop.cancel(order, reason))
        return f"order {order} is cancelled; {money(cents)} go back."

    @tool
    def return_items(self, order: str, items: list[str], payment: str) -> str:
        """Take items of a delivered order back and refund them to a payment method of the customer.

        items: item numbers
        """
        cents = self._change(order, lambda: self.shop.give_back(order, items, payment))
        return f"return noted; {money(cents)} go to {payment}."

    @tool
    def exchange_item(self, order: str, item: str, new_item: str, payment: str) -> str:
        """Exchange an item of a delivered order for another variant; payment takes or receives the difference."""
        cents = self._change(order, lambda: self.shop.swap(order, item, new_item, payment))
        way = "go to" if cents >= 0 else "are taken from"
        return f"exchange noted; {money(abs(cents))} {way} {payment}."

    @tool
    def change_address(self, order: str, street: str, city: str, postcode: str) -> str:
        """Send a pending order to another address."""
        address = Address(*(" ".join(part.split()) for part in (street, city, postcode)))
        self._change(order, lambda: self.shop.readdress(order, address))
        return f"order {order} goes to {address}."

    @tool
    def change_payment(self, order: str, payment: str) -> str:
        """Charge a pending order to another payment method of the customer."""
        self._change(order, lambda: self.shop.repay(order, payment))
        return f"order {order} is paid with {payment}."

    @tool
    def refund(self, order: str, amount: float) -> str:
        """Refund a part of a delivered order for a complaint, to its payment method."""
        # Cut where no order reaches, or a huge amount would be more cents than a number can hold.
        cents = round(min(max(amount, -1e6), 1e6) * 100)
        self._change(order, lambda: self.shop.refund(order, cents))
        return f"{money(cents)} go back for order {order}."

    @tool
    def refuse(self, order: str, reason: Refusal) -> str:
        """Note on an order that a wish was refused, and why."""
        self._try(self.shop.refuse, order, reason)
        self._hold(order)
        return f"noted on order {order}: refused, {reason}."

    @tool
    def escalate(self, order: str, reason: Escalation) -> str:
        """Hand the conversation about an order over to a person. This ends it."""
        self._try(self.shop.escalate, order, reason)
        self.talk.unserved += reason == "identity" and not self.talk.missed
        return "a person takes over."

    async def answered(self, text: str) -> str | None:
        """Words go to the customer, who answers or leaves."""
        return await self.customer.reply(self.talk, self.shop, text)

    def done(self) -> bool:
        return self.shop.escalated is not None

    def step_reward(self) -> float:
        """The change of the partial credit, so that its sum over an episode cannot be farmed."""
        if not self.shaped:
            return 0.0
        before = self.credit
        self.credit = self.grade.partial / 2
        return self.credit - before

    def reward(self) -> float:
        """1 in sum with success; without it what `step_reward` gave, at most one half."""
        return 1.0 - self.credit if self.grade.success else 0.0

    def scores(self) -> dict[str, float]:
        found = self.grade
        return {
            "success": float(found.success),
            "state": float(found.state),
            "told": found.told,
            "rules": float(found.rules),
            "partial": found.partial,
            "wrong_changes": float(found.wrong_changes),
            **({"user_tokens": float(self.customer.tokens)} if self._played_by[0] else {}),
        }

    @property
    def grade(self) -> Grade:
        return grade(self.scenario, self.wanted, self.shop, self.talk)

    def state_key(self) -> str:
        talk = self.talk.to_json()
        if not self._played_by[0]:
            # What was said does not matter to the script, only what came of it.
            del talk["turns"]
        # An address changed there and back leaves the books as they were, and the customer with two mails.
        state = [self.fingerprint, self.shop.state(), sorted(self.shop.changes), talk]
        return sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:24]

    def snapshot(self) -> dict[str, Any]:
        return {"shop": self.shop.snapshot(), "talk": self.talk.to_json(), "credit": self.credit}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Of the same task, which `reset` has begun."""
        self.shop.restore(snapshot["shop"])
        self.talk = Talk.from_json(snapshot["talk"])
        self.credit = snapshot["credit"]

    def oracle(self, task: Task) -> Iterator[Action]:
        """Asks, looks up, proposes, acts and tells."""
        return lines.solution(Scenario.from_json(task.data))

    def cheats(self, task: Task) -> Mapping[str, Iterable[Action]]:
        return lines.cheats(Scenario.from_json(task.data), self.max_steps)

    async def close(self) -> None:
        await self.customer.close()

    def _begin(self, scenario: Scenario) -> None:
        self.scenario, self.shop, self.wanted = scenario, Shop(scenario.books), scenario.expected()
        self.talk = Talk(scenario.patience)
        self.credit = 0.0
        self.fingerprint = sha256(json.dumps(scenario.to_json()).encode()).hexdigest()[:12]
        self.customer = self._customer(scenario)

    def _customer(self, scenario: Scenario) -> Customer:
        url, model, key_env = self._played_by
        if not url:
            return ScriptedCustomer(scenario)
        from retail_desk.played import ModelCustomer

        return ModelCustomer(scenario, url, model, key_env)

    def _change(self, number: str, work: Callable[[], T]) -> T:
        """A change of an order, held against the rules of the policy."""
        done = self._try(work)
        self._hold(number)
        self.talk.unasked += self.scenario.consent and self.shop.changes[-1][1] not in self.talk.agreed
        return done

    def _hold(self, number: str) -> None:
        self.talk.unserved += self.shop.order(number).customer not in self.talk.found

    def _try(self, work: Callable[..., T], *arguments: str) -> T:
        try:
            return work(*arguments)
        except ValueError as error:
            raise ToolError(str(error)) from None

    def _method(self, name: str) -> str:
        return f"{name} (holds {money(self.shop.balances[name])})" if name in self.shop.balances else name

    def _describe(self, number: str, order: Order) -> str:
        arrived = f", delivered {order.arrived}" if order.arrived else ""
        rows = [f"order {number}: {order.status}, placed {order.placed}, promised {order.promised}{arrived}"]
        for line in order.lines:
            product = self._product(line.item)
            options = _options(product.variants[line.item].options)
            state = "" if line.state == "sold" else f" ({line.state})"
            rows.append(f"item {line.item}: {product.name}, {options}, {money(line.price)}{state}")
        tracking = f"; tracking number {order.tracking}" if order.tracking else ""
        refused = f"; refused: {', '.join(order.refused)}" if order.refused else ""
        return "\n".join([*rows, f"paid with {order.payment}; to {order.address}{tracking}{refused}"])

    def _product(self, item: str) -> Any:
        return next(p for p in self.scenario.books.products.values() if item in p.variants)


def _options(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())

"""Builds the books of a scenario record by record, from the names of a split and a seeded random generator."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

from retail_desk.records import Address, Books, Customer, Line, Order, Payment, Product, Status, Variant
from retail_desk.words import Names


class StockRoom:
    """The books while they are being written."""

    def __init__(self, rng: Random, names: Names) -> None:
        self.rng, self.names = rng, names
        self.today = date(2031, 1, 1) + timedelta(rng.randrange(200))
        self.products: dict[str, Product] = {}
        self.customers: dict[str, Customer] = {}
        self.orders: dict[str, Order] = {}
        self.avoid: set[str] = set()
        "Products that no further order holds."
        self._numbers = {kind: iter(rng.sample(getattr(names, kind), 60)) for kind in ("orders", "items", "parcels")}

    def books(self) -> Books:
        # In the order of their numbers, so that what is asked about does not stand first.
        orders = dict(sorted(self.orders.items()))
        return Books(self.today.isoformat(), self.products, self.customers, orders)

    def add_products(self, count: int) -> None:
        for name in self.rng.sample(self.names.products, count):
            first, second = self.rng.sample(sorted(self.names.options), 2)
            variants = {}
            for one in self.rng.sample(self.names.options[first], 2):
                for other in self.rng.sample(self.names.options[second], 2):
                    # Multiples of 20 cents, so that 5 % of a total is whole cents.
                    price = 20 * self.rng.randint(40, 400)
                    variants[self.number("items")] = Variant({first: one, second: other}, price, 3)
            self.products[name] = Product(name, variants)

    def add_customer(self, name: str = "") -> str:
        """Two cards and a gift card that pays for nothing in the shop; the key."""
        key = f"customer-{len(self.customers) + 1}"
        name = name or f"{self.rng.choice(self.names.first)} {self.rng.choice(self.names.last)}"
        payments: dict[str, Payment] = {}
        for kind in ("card", "card", "gift card"):
            digits = f"{self.rng.randrange(10_000):04d}"
            balance = self.rng.randint(3, 7) * 100 if kind == "gift card" else 0
            payments[f"{kind.replace(' ', '-')}-{digits}"] = Payment(
                "card" if kind == "card" else "gift card", digits, balance
            )
        self.customers[key] = Customer(name, self.address(), payments)
        return key

    def address(self) -> Address:
        city = self.rng.choice(self.names.cities)
        letters = "".join(self.rng.choices("ABDEFGHJLNPQRSTUW", k=2))
        code = f"{city[:2].upper()}{self.rng.randint(1, 99)} {self.rng.randint(1, 9)}{letters}"
        return Address(f"{self.rng.randint(1, 120)} {self.rng.choice(self.names.streets)}", city, code)

    def add_order(self, customer: str, status: Status, *, lines: int = 1, arrived_ago: int = 10, late: int = 0) -> str:
        """The number. `arrived_ago` and `late` are days of a delivered order; `late` below 0 is early."""
        number = self.number("orders")
        payment = next(iter(self.customers[customer].payments))
        products = self.rng.sample(sorted(set(self.products) - self.avoid), lines)
        bought = []
        for product in products:
            item = self.rng.choice(sorted(self.products[product].variants))
            bought.append(Line(item, self.products[product].variants[item].price))
        arrived = self.today - timedelta(arrived_ago)
        promised = (
            arrived - timedelta(late) if status == "delivered" else self.today + timedelta(self.rng.randint(2, 9))
        )
        self.orders[number] = Order(
            customer,
            status,
            tuple(bought),
            payment,
            self.customers[customer].address,
            (promised - timedelta(self.rng.randint(10, 14))).isoformat(),
            promised.isoformat(),
            arrived.isoformat() if status == "delivered" else "",
            "" if status == "pending" else f"TF{self.number('parcels')}",
        )
        return number

    def sell_out(self, item: str) -> None:
        for name, product in self.products.items():
            if item in product.variants:
                old = product.variants[item]
                variants = {**product.variants, item: Variant(old.options, old.price, 0)}
                self.products[name] = Product(product.name, variants)

    def product_of(self, item: str) -> Product:
        return next(product for product in self.products.values() if item in product.variants)

    def number(self, kind: str) -> str:
        return str(next(self._numbers[kind]))

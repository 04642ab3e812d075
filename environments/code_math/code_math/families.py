"""Families of problems: a random generator and a size (0 to 2) to question, answer and the cells that compute it.

Answers are computed here by other means than in the cells, which use only what the smallest sandbox knows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from fractions import Fraction

Made = tuple[str, str, tuple[str, ...]]
Family = Callable[[random.Random, int], Made]
_GCD = "import math\ndef lowest(a, b):\n    g = math.gcd(a, b) * (-1 if b < 0 else 1)\n    return f'{a // g}/{b // g}'"


def arithmetic(rng: random.Random, size: int) -> Made:
    numbers = [rng.randint(11, (99, 999, 9999)[size]) for _ in range(size + 3)]
    expression = f"{numbers[0]} * {numbers[1]}"
    value = numbers[0] * numbers[1]
    for number in numbers[2:]:
        sign = rng.choice((1, -1))
        expression += f" {'+' if sign > 0 else '-'} {number}"
        value += sign * number
    return f"What is {expression}?", str(value), (expression,)


def power(rng: random.Random, size: int) -> Made:
    base, exponent = rng.randint(2, 19), rng.randint(5, (12, 60, 400)[size])
    modulus = rng.randint(7, (50, 500, 9999)[size])
    value = 1
    for _ in range(exponent):
        value = value * base % modulus
    question = f"What is the remainder when {base}^{exponent} is divided by {modulus}?"
    return question, str(value), (f"{base}**{exponent} % {modulus}",)


def digit_sum(rng: random.Random, size: int) -> Made:
    base, exponent = rng.randint(2, 12), rng.randint(4, (9, 40, 150)[size])
    number, total = base**exponent, 0
    while number:
        number, digit = divmod(number, 10)
        total += digit
    question = f"What is the sum of the decimal digits of {base}^{exponent}?"
    return question, str(total), (f"sum(int(c) for c in str({base}**{exponent}))",)


def multiples(rng: random.Random, size: int) -> Made:
    # In order, or the same problem with its divisors exchanged could be in another split.
    a, b = sorted(rng.sample(range(2, (8, 13, 20)[size]), 2))
    top = rng.randint(30, (90, 900, 20000)[size])
    both = top // math.lcm(a, b)
    question = f"How many whole numbers from 1 to {top} are divisible by {a} or by {b}"
    if size < 2:
        cell = f"sum(1 for n in range(1, {top} + 1) if n % {a} == 0 or n % {b} == 0)"
        return f"{question}?", str(top // a + top // b - both), (cell,)
    cell = f"sum(1 for n in range(1, {top} + 1) if (n % {a} == 0) != (n % {b} == 0))"
    return f"{question}, but not by both?", str(top // a + top // b - 2 * both), (cell,)


def linear(rng: random.Random, size: int) -> Made:
    reach = (9, 30, 200)[size]
    a, c = rng.sample(range(2, reach + 1), 2)
    b, d = rng.randint(1, reach), rng.randint(1, 5 * reach)
    value = Fraction(d - b, a - c)
    question = f"Solve {a}x + {b} = {c}x + {d} for x. Give a fraction in lowest terms."
    return question, str(value), (_GCD, f"print(lowest({d} - {b}, {a} - {c}))")


def pair(rng: random.Random, size: int) -> Made:
    reach = (6, 15, 60)[size]
    x, y = rng.randint(-reach, reach), rng.randint(-reach, reach)
    a, b, c = (rng.randint(1, reach) for _ in range(3))
    d = rng.choice([n for n in range(1, reach + 3) if a * n != b * c])
    e, f = a * x + b * y, c * x + d * y
    question = f"Solve {a}x + {b}y = {e} and {c}x + {d}y = {f}. Answer as (x, y)."
    cells = (f"det = {a} * {d} - {b} * {c}", f"(({e} * {d} - {b} * {f}) // det, ({a} * {f} - {e} * {c}) // det)")
    return question, f"({x}, {y})", cells


def roots(rng: random.Random, size: int) -> Made:
    reach = (6, 20, 90)[size]
    one, other = rng.sample([n for n in range(-reach, reach + 1) if n], 2)
    b, c = -(one + other), one * other
    lead = rng.randint(1, size + 1)
    question = f"Which integers x solve {lead}x^2 + {lead * b}x + {lead * c} = 0? Answer as a set."
    question = question.replace("+ -", "- ")
    test = f"{lead} * x * x + {lead * b} * x + {lead * c} == 0"
    return question, f"{{{one}, {other}}}", (f"{{x for x in range(-{reach}, {reach} + 1) if {test}}}",)


def journey(rng: random.Random, size: int) -> Made:
    speeds = [rng.randrange(30, 130, 6) for _ in range(size + 1)]
    minutes = [rng.randrange(10, 170, 5) for _ in speeds]
    legs = ", then ".join(f"{m} minutes at {s} km/h" for s, m in zip(speeds, minutes, strict=True))
    metres = sum(Fraction(s * m * 1000, 60) for s, m in zip(speeds, minutes, strict=True))
    terms = " + ".join(f"{s} * {m} / 60" for s, m in zip(speeds, minutes, strict=True))
    return f"A train travels {legs}. How far does it go, in km?", f"{metres / 1000} km", (terms,)


def recurrence(rng: random.Random, size: int) -> Made:
    p, q = rng.randint(1, 3), rng.randint(-2, 3)
    first, second, n = rng.randint(1, 9), rng.randint(1, 9), rng.randint(5, (7, 15, 40)[size])
    values = [first, second]
    while len(values) < n:
        values.append(p * values[-1] + q * values[-2])
    question = (
        f"A sequence begins with {first}, {second}; every later term is {p} times the one before it "
        f"plus {q} times the one before that. What is term {n}?"
    )
    cells = (f"a, b = {first}, {second}", f"for _ in range({n} - 1):\n    a, b = b, {p} * b + {q} * a\nprint(a)")
    return question, str(values[-1]), cells


def dice(rng: random.Random, size: int) -> Made:
    count, sides = size + 2, rng.randint(4, 9 if size else 12)
    total = rng.randint(count + 1, count * sides - 1)
    ways = {0: 1}
    for _ in range(count):
        thrown: dict[int, int] = {}
        for value, number in ways.items():
            for face in range(1, sides + 1):
                thrown[value + face] = thrown.get(value + face, 0) + number
        ways = thrown
    question = (
        f"{count} fair dice with {sides} sides (1 to {sides}) are thrown. What is the probability that the sum is "
        f"{total}? Give a fraction in lowest terms."
    )
    cell = (
        f"from itertools import product\nhits = sum(1 for t in product(range(1, {sides} + 1), repeat={count}) "
        f"if sum(t) == {total})\nprint(lowest(hits, {sides}**{count}))"
    )
    return question, str(Fraction(ways[total], sides**count)), (_GCD, cell)


def primes(rng: random.Random, size: int) -> Made:
    low = rng.randint(2, (30, 300, 3000)[size])
    high = low + rng.randint(10, (30, 200, 1500)[size])
    sieve = bytearray([1]) * (high + 1)
    for n in range(2, math.isqrt(high) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, high + 1, n)))
    found = [n for n in range(low, high + 1) if sieve[n]]
    word, value = rng.choice([("How many primes are there", len(found)), ("What is the sum of the primes", sum(found))])
    measure = "len" if value == len(found) else "sum"
    cells = (
        "def prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))",
        f"{measure}([n for n in range({low}, {high} + 1) if prime(n)])",
    )
    return f"{word} from {low} to {high}?", str(value), cells


def divisors(rng: random.Random, size: int) -> Made:
    number = math.prod(rng.choice((2, 2, 3, 3, 5, 7, 11)) for _ in range((4, 6, 8)[size]))
    count, rest, prime = 1, number, 2
    while rest > 1:
        power_of = 0
        while rest % prime == 0:
            rest, power_of = rest // prime, power_of + 1
        count, prime = count * (power_of + 1), prime + 1
    cell = f"n, found = {number}, 0\nfor d in range(1, int(n**0.5) + 1):\n    if n % d == 0:\n"
    cell += "        found += 1 if d * d == n else 2\nprint(found)"
    return f"How many positive divisors does {number} have?", str(count), (cell,)


FAMILIES: Mapping[str, Family] = {
    family.__name__: family
    for family in (
        *(arithmetic, power, digit_sum, multiples, linear, pair),
        *(roots, journey, recurrence, dice, primes, divisors),
    )
}
SHORT = ("arithmetic", "power", "digit_sum", "multiples", "roots", "journey")
"Solved by one run."
PLAIN = tuple(name for name in FAMILIES if name not in ("roots", "journey"))
"The last run prints the answer as it is written."

"""What an episode was worth: success by the final state alone, and partial credit for facts.

Partial credit counts each fact once, however often it was produced, and stays below one half without success.
"""

from __future__ import annotations

import re

from tool_desk.calculator import calculate
from tool_desk.desk import Desk, same
from tool_desk.request import Request

_LOOKUP, _SUM, _FIELD, _BOOKED, _ANSWER = 2, 1, 1, 1, 2
"Points of a needed record that was read, the right sum, each right word of the booking, the booking made, the answer."


def succeeded(request: Request, desk: Desk) -> bool:
    """The office holds the booking asked for and nothing else, and the number asked for was told."""
    wanted = [request.booking] if request.booking else []
    return desk.bookings == wanted and (request.answer is None or _told(request.answer, desk.answer))


def partial_credit(request: Request, desk: Desk) -> float:
    """From 0 to 1: the share of facts that are right. A wrong booking costs a point.

    The words of the booking are judged on the latest `book` call alone, so that trying many earns nothing.
    """
    total = _LOOKUP * len(request.lookups)
    points = sum(_LOOKUP for tool, argument in request.lookups if f"{tool}:{argument}" in desk.seen)
    if request.expression:
        total += _SUM
        points += _SUM * (f"calculate:{calculate(request.expression)}" in desk.seen)
    if request.booking:
        total += 3 * _FIELD + _BOOKED
        points += _BOOKED * (request.booking in desk.bookings)
        if desk.draft:
            points += sum(_FIELD for word, right in zip(desk.draft, request.booking, strict=True) if same(word, right))
    if request.answer is not None:
        total += _ANSWER
        points += _ANSWER * _told(request.answer, desk.answer)
    return max(0, points - wrong_bookings(request, desk)) / total


def wrong_bookings(request: Request, desk: Desk) -> int:
    return sum(booking != request.booking for booking in desk.bookings)


def _told(number: int, text: str | None) -> bool:
    """The text holds that number and no other: listing many is no answer."""
    found = {float(digits) for digits in re.findall(r"\d+(?:\.\d+)?", (text or "")[:400])}
    return found == {float(number)} and len(text or "") <= 400

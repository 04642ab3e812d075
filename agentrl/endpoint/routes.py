"""The routes of `agentrl serve` beside OpenAI's: announce a session, ask after it, finish it."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from agentrl.endpoint.desk import Desk, plan_of
from agentrl.endpoint.problems import Problem
from agentrl.endpoint.server import Answer, read_body
from agentrl.endpoint.session import Ending
from agentrl.protocols import EngineHealth

OUTCOMES = ("done", "failed")
_KEYS = ("reward", "step_rewards", "success", "scores", "task", "outcome", "reason")


def routes_of(desk: Desk, alive: Callable[[], Awaitable[EngineHealth]]) -> Sequence[tuple[str, str, Answer]]:
    """`alive` asks the engine."""

    async def announce(request: Request, named: str) -> Response:
        name, plan = plan_of(await _object(request, empty=True))
        name = desk.announce(name or named, plan)
        return _json({"id": name, "base_url": f"{str(request.base_url).rstrip('/')}/v1/s/{name}"})

    async def state(request: Request, named: str) -> Response:
        return _json(desk.state(request.path_params["session"]))

    async def finish(request: Request, named: str) -> Response:
        ending, task = ending_of(await _object(request))
        return _json(await desk.finish(request.path_params["session"], ending, task))

    async def health(request: Request, named: str) -> Response:
        found = await alive()
        return _json({"ok": found.ok, "detail": found.detail, "open_sessions": desk.open}, 200 if found.ok else 503)

    return (
        ("POST", "/v1/sessions", announce),
        ("GET", "/v1/sessions/{session}", state),
        ("POST", "/v1/sessions/{session}/finish", finish),
        ("GET", "/health", health),
    )


def ending_of(body: dict[str, Any]) -> tuple[Ending, str]:
    """What a client says of its episode, and the task that it was. Raises `Problem`."""
    unknown = sorted(body.keys() - set(_KEYS))
    if unknown:
        raise Problem(400, f"{unknown[0]!r} is not known here; {', '.join(_KEYS)} are.", param=unknown[0])
    task, outcome, reason = body.get("task") or "", body.get("outcome", "done"), body.get("reason") or ""
    if outcome not in OUTCOMES or not isinstance(task, str) or not isinstance(reason, str):
        raise Problem(400, f"outcome is one of {', '.join(OUTCOMES)}; task and reason are texts.", param="outcome")
    if outcome == "failed":
        return Ending(fault=f"the client says that it failed: {reason or 'no reason was given'}."), task
    given = [body.get(key) for key in ("reward", "step_rewards", "success")]
    if all(value is None for value in given):
        raise Problem(
            400,
            "what was it worth? Give reward, step_rewards or success; or outcome failed, which is no score.",
        )
    success, scores = body.get("success"), body.get("scores") or {}
    if not (success is None or isinstance(success, bool)) or not isinstance(scores, dict):
        raise Problem(400, "success is true or false, and scores are numbers by name.", param="success")
    numbers = {str(name): _number(f"scores.{name}", value) for name, value in scores.items()}
    if success is not None:
        numbers["success"] = float(success)
    rewards = body.get("step_rewards") or []
    if not isinstance(rewards, list):
        raise Problem(400, "step_rewards is a list of numbers, one an answer.", param="step_rewards")
    default = 0.0 if success is None or rewards else float(success)
    reward = default if body.get("reward") is None else _number("reward", body["reward"])
    return Ending(reward, tuple(_number("step_rewards", one) for one in rewards), numbers), task


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Problem(400, f"{name} is {value!r}; a finite number is needed.", param=name)
    return float(value)


async def _object(request: Request, *, empty: bool = False) -> dict[str, Any]:
    data = await read_body(request)
    if empty and not data:
        return {}
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Problem(400, f"the body is a JSON {type(body).__name__}; an object is needed.")
    return body


def _json(told: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(told), status, media_type="application/json")

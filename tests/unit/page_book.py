"""A book that shows everything the page can show: pictures and clicks, branches, refused calls, markup, the token lens.

Its data is written by hand and the same each time, so that a screenshot shows only what changed in the page.
"""

from __future__ import annotations

import base64
import math
import random
import re
import struct
import zlib
from collections import Counter

from agentrl.store.rows import EpisodeRow
from agentrl.view.shapes import (
    Book,
    Call,
    Curve,
    EpisodeView,
    Fact,
    Grid,
    GridRow,
    Neighbour,
    Overview,
    Said,
    Seconds,
    Setting,
    StepView,
    Token,
)

MARKUP = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=2</script><b>bold</b>'
"What an environment must not be able to bring to life."
PICTURE = "api/image/5c4ee"
OUTCOMES = ("success", "wrong_answer", "limit", "malformed_call", "gave_up", "success", "unknown_tool", "success")
ORDER = "open, 29.50 EUR, paid by card"
TREE = "RootWebArea 'Service desk'\n  banner\n    heading 'Orders'\n  main\n    row 'Order 4711'\n      button 'Refund'"
PIECES = [
    *re.findall(r" ?\w+|\n|[^\w\n]", 'I look at the order first.\n<call>{"name": "click", "x": 134}</call>'),
    "<|im_end|>",
]
EPISODES = 240
BATCHES = 30


def make_book() -> Book:
    lines = [make_line(i) for i in range(EPISODES)]
    episodes = {line.id: make_episode(lines, i) for i, line in enumerate(lines[:8])}
    return Book(
        make_overview(lines), make_grid(), lines, episodes, left_out=len(lines) - 8, images={PICTURE: picture()}
    )


def make_line(i: int) -> EpisodeRow:
    outcome = OUTCOMES[i % 8] if i != 17 else "infrastructure"
    won = outcome == "success"
    return EpisodeRow(
        id=f"g{i // 8:03d}-{i % 8}",
        group=f"g{i // 8:03d}",
        task=f"desk-refund-{i // 8 % 40:03d}",
        state="trained",
        batch=i // 8 + 1,
        attempt=0,
        outcome=outcome,
        status="infrastructure_error" if i == 17 else "truncated" if outcome == "limit" else "ok",
        reward=1.0 - 0.01 * (i % 5) if won else -0.05 * (i % 3),
        success=won,
        steps=3 + i % 5,
        tokens=60 + 37 * i % 211,
        calls=3 + i % 4,
        wrong_calls=int(outcome == "malformed_call") * 2,
        started=1.7e9 + i,
        seconds=1.5 + i % 7 * 0.4,
        oldest=i // 8,
        newest=i // 8,
        source="policy",
        forked_from="g000-0-s1" if i in (1, 2) else None,
        error="the judge did not answer within 30 s; it was asked 3 times" if i == 17 else "",
    )


def make_overview(lines: list[EpisodeRow]) -> Overview:
    x = list(range(1, BATCHES + 1))
    success = [0.08 + 0.72 / (1 + math.exp(-(b - 14) / 4)) + 0.03 * math.sin(2.3 * b) for b in x]
    smooth = {
        "reward": ("reward", "", [0.9 * s - 0.05 for s in success]),
        "entropy": ("entropy", "nats", [1.3 * math.exp(-b / 22) + 0.02 * math.sin(b) for b in x]),
        "mismatch": ("learner–sampler mismatch", "nats", [2e-4 + 1e-4 * math.sin(b) ** 2 for b in x]),
        "tokens_per_episode": ("tokens per episode", "tokens", [140 - 1.4 * b + 5 * math.sin(b) for b in x]),
        "flat_groups": ("groups without signal", "share", [0.5 - 0.4 * math.sin(b / 10) for b in x]),
        "seconds_generate": ("sampling", "seconds", [6 + math.sin(b) for b in x]),
        "call_validity": ("valid calls", "share", [0.7 + 0.009 * b for b in x]),
        "update_gradient_norm": ("gradient norm", "", [0.8 * math.exp(-b / 30) + 0.05 * math.sin(3 * b) for b in x]),
    }
    curves = [
        Curve("success", "success", "share", x, success, [s - 0.07 for s in success], [s + 0.07 for s in success])
    ]
    curves += [Curve(name, label, unit, x, y) for name, (label, unit, y) in smooth.items()]
    settings = [
        Setting("environment.name", "tool_desk", None, True, "tool_desk"),
        Setting("method.name", "gigpo", "grpo", True, "grpo"),
        Setting("training.learning_rate", 0.001, 0.0001, True, 0.001),
        Setting("rollout.group_size", 8, 8, False, 8),
        Setting("rollout.temperature", 1.0, 1.0, False, 0.7),
    ]
    return Overview(
        kind="run",
        title="desk-gigpo",
        folder="runs/desk-gigpo",
        verdict="Success on held-out tasks rose from 9.4% to 78.1%: +68.8 points [+56.2, +79.7], paired on 64 tasks.",
        facts=[
            Fact("success", "78.1% [66.6, 86.5]", "64 held-out tasks, greedy", "good"),
            Fact("before", "9.4% [4.4, 19.0]", "same tasks"),
            Fact("null policy", "0.0% [0.0, 5.7]", "says nothing"),
            Fact("tasks won, lost", "45, 1", "p < 0.001", "good"),
            Fact("took", "4 min 12 s", "2 cores"),
            Fact("commit", "9f31c2a", "clean"),
        ],
        command="agentrl train recipes/tool_desk.toml method.name=gigpo training.learning_rate=0.001 seed=0",
        settings=settings,
        curves=curves,
        health=[
            "41% of the groups of the last 5 batches have equal rewards and gave no gradient: try harder tasks "
            "(`environment.skill`) or a higher `rollout.temperature`.",
        ],
        outcomes=dict(Counter(line.outcome for line in lines)),
        episodes=len(lines),
        live=False,
        revision=1,
        runs=["desk-gigpo", "desk-grpo"],
    )


def make_grid() -> Grid:
    rows = []
    for i in range(24):
        first, second = (i * 7 % 5) / 4, (i * 3 % 5) / 4
        ids = [f"g{i:03d}-{k}" for k in range(4)]
        tried = None if i == 5 else second
        flipped = tried is not None and (first > 0.5) != (second > 0.5)
        rows.append(GridRow(f"desk-refund-{i:03d}", [first, tried], [ids, ids if i != 5 else []], flipped))
    return Grid(["desk-gigpo", "desk-grpo"], sorted(rows, key=lambda row: not row.flipped))


def make_episode(lines: list[EpisodeRow], place: int) -> EpisodeView:
    line = lines[place]
    chance = random.Random(place)
    steps = [make_step(line, place, k, chance) for k in range(line.steps)]
    group = [make_neighbour(lines[k]) for k in range(8)]
    return EpisodeView(
        line=line,
        task={"id": line.task, "env": "tool_desk", "seed": place, "data": {"order": 4711, "amount": 29.5}},
        steps=steps,
        final=[Said("tool", steps[-1].calls[0].result if steps[-1].calls else "done", "refund")],
        group=group,
        given="Look at the order before you refund it." if place == 2 else "",
        previous=lines[place - 1].id if place else None,
        next=lines[place + 1].id,
    )


def step_ids(line: EpisodeRow) -> list[str]:
    """Members 1 and 2 were forked from member 0 after its second step."""
    shared = 2 if line.forked_from else 0
    return [f"g000-0-s{k}" if k < shared else f"{line.id}-s{k}" for k in range(line.steps)]


def make_neighbour(line: EpisodeRow) -> Neighbour:
    sign = 1 if line.success else -1
    advantages = [sign * (0.4 + 0.15 * k) if k % 4 != 3 else None for k in range(line.steps)]
    return Neighbour(line.id, line.outcome, line.reward, line.steps, line.forked_from, step_ids(line), advantages)


def make_step(line: EpisodeRow, place: int, k: int, chance: random.Random) -> StepView:
    last, refused = k == line.steps - 1, line.outcome == "malformed_call" and k == 1
    shown = [Said("tool", f"Order 4711: {MARKUP if k == 2 else ORDER}", "click"), Said("user", f"Turn {k + 1}.")]
    return StepView(
        id=step_ids(line)[k],
        index=k,
        shown=opening(place) if k == 0 else shown,
        prompt=f"<|im_start|>user\nOrder 4711: {MARKUP if k == 1 else 'open'}<|im_end|>\n<|im_start|>assistant\n",
        prompt_tokens=31 + 240 * (k == 0),
        tokens=make_tokens(line, k, chance),
        text="I look at the order first.\n" if k == 0 else "",
        reasoning="The order is open and was paid by card, so a refund is allowed." if k == 1 else "",
        calls=[make_call(k, last, refused)],
        error='the call could not be read: `amount` must be a number, and was "a lot"' if refused else "",
        reward=line.reward if last else 0.0,
        scores={"success": float(line.success), "length": -0.01 * k} if last else {},
        seconds=Seconds(0.05 * (k == 0), 0.22 + 0.1 * chance.random(), 0.08 + 0.2 * (k % 2), 0.3 if last else 0.0),
        started=1.0 + k,
        images=[PICTURE] if k < 2 else [],
        marks=[(0.42, 0.425)] if k < 2 else [],
        tree=TREE if k < 2 else "",
        anchor=f"desk/orders/4711?page={k}",
        shared=bool(line.forked_from) and k < 2,
        source="policy",
    )


def opening(place: int) -> list[Said]:
    asked = "A customer wants the money for order 4711 back. Is it allowed? " + (MARKUP if place == 0 else "")
    return [Said("system", "You work at a service desk. Call one tool at a time."), Said("user", asked)]


def make_call(k: int, last: bool, refused: bool) -> Call:
    result = f"Order 4711: {MARKUP if k == 1 else ORDER}"
    if refused:
        return Call("click", {"x": "a lot"}, "`x` must be a number", True)
    if last:
        reason = "The order is open, it was paid by card, and the customer asked within thirty days of its delivery."
        return Call("refund", {"order": 4711, "amount": 29.5, "reason": reason}, result, False)
    return Call("click", {"x": 134, "y": 85}, result, False)


def make_tokens(line: EpisodeRow, k: int, chance: random.Random) -> list[Token]:
    sign = 1.0 if line.success else -1.0
    made = []
    for i, piece in enumerate(PIECES):
        trained = k % 4 != 3 and piece != "<|im_end|>"
        logprob = -(chance.random() ** 6) * 6
        weight = 1.0 if i < 8 else 0.6 + 0.4 * chance.random()
        advantage = sign * (0.4 + 0.15 * k) * weight if trained else None
        mismatch = chance.gauss(0, 0.012) if trained else None
        made.append(Token(piece, 100 + i, logprob, k // 2, trained, advantage, mismatch))
    return made


def picture() -> str:
    """A small screenshot of nothing in particular, as a data address."""
    width, height = 320, 200
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            shade = (52, 92, 138) if y < 22 else (247, 248, 250)
            if 36 < y < 180 and x > 76 and (y - 36) % 24 < 13 and x < 300 - (y * 37 % 90):
                shade = (205, 213, 224)
            if x < 64 and y >= 22:
                shade = (230, 235, 241)
            if 108 < x < 160 and 76 < y < 94:
                shade = (61, 143, 219)
            rows += bytes(shade)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    image += chunk(b"IDAT", zlib.compress(bytes(rows), 9)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(image).decode()

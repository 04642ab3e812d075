"""The learning benchmarks go on where they stopped, and their test bed takes the gradient that it says."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keydoor.world import Layout, World
from learning.cells import Cell, Measured, fill, grid, read
from learning.intervals import estimate, paired
from learning.page import PAGE, written
from learning.strategies import ARMS, HINT, PLACE, SURE, TOKENS, TOOLS, Places, drawn
from learning.strategies import SETTINGS as SETTINGS_OF_CHAINS
from learning.strategies import learn as learn_a_chain
from learning.tabular import METHODS, SETTINGS, Player, Table, beginner, demonstrator, learn, sights, slope

from agentrl.plugins import load_host
from agentrl.types import Message

SHORT = replace(SETTINGS["tight"], batches=6)


def test_only_cells_without_a_line_are_run(tmp_path: Path) -> None:
    chosen = Namespace(out=tmp_path / "cells.jsonl", only="", seconds=float("inf"))
    ran: list[str] = []

    def run(cell: Cell) -> Measured:
        ran.append(cell.name)
        return {"success": [0.25, 0.5], "held_out": 0.5}

    cells = grid({"easy": ("grpo", "rloo"), "hard": ("grpo",)}, seeds=2)
    chosen.only = "easy"
    assert fill(cells, run, chosen) == 0
    assert ran == [f"easy / {method} / seed {seed}" for seed in (0, 1) for method in ("grpo", "rloo")]
    with chosen.out.open("a") as file:
        file.write('{"cell": {"seed": 0, "sett')
    chosen.only, ran[:] = "", []
    fill(cells, run, chosen)
    assert ran == ["hard / grpo / seed 0", "hard / grpo / seed 1"]
    assert sorted(result.cell for result in read(chosen.out)) == sorted(cells)
    assert {tuple(result.measured["success"]) for result in read(chosen.out)} == {(0.25, 0.5)}  # type: ignore[arg-type]


def test_no_cell_is_begun_when_the_time_is_up(tmp_path: Path) -> None:
    chosen = Namespace(out=tmp_path / "cells.jsonl", only="", seconds=-1.0)
    assert fill(grid({"easy": ("grpo",)}, seeds=3), lambda cell: {}, chosen) == 3
    assert read(chosen.out) == []


def test_intervals_are_students() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.half == pytest.approx(4.303 / 3**0.5)
    difference = paired({0: 1.0, 1: 5.0, 7: 0.0}, {0: 2.0, 1: 6.5, 3: 9.0})
    assert difference is not None
    assert difference.value == 1.25
    assert difference.half == pytest.approx(12.706 * 0.25)


def test_the_table_knows_every_text_of_the_world() -> None:
    told = set()
    for start, key, door, holding in product(range(9), range(9), range(9), (False, True)):
        world = World(Layout(3, start, key, door))
        world.holding = holding
        told.add(world.describe())
    assert told == set(sights())
    assert demonstrator("key north east")[:2] == pytest.approx([0.2 + 0.1, 0.2 + 0.1])
    assert demonstrator("door here") == pytest.approx(np.full(6, 1 / 6))


def test_the_gradient_of_the_table_is_that_of_weighted_log_probabilities() -> None:
    table, rng = Table(0.1, beginner()), np.random.default_rng(0)
    row, action = rng.integers(0, 18, 30), rng.integers(0, 6, 30)
    weight = rng.normal(size=30)

    def total() -> float:
        return float((weight * np.log(table.chances())[row, action]).sum())

    gradient, tiny = table.gradient(row, action, weight), 1e-5
    for place in [(0, 0), (3, 5), (17, 2), (9, 1)]:
        table.logits[place] += tiny
        above = total()
        table.logits[place] -= 2 * tiny
        below = total()
        table.logits[place] += tiny
        assert gradient[place] == pytest.approx((above - below) / (2 * tiny), abs=1e-6)


def test_a_run_is_its_seed_and_methods_play_the_same_tasks() -> None:
    host = load_host()
    grpo = METHODS["grpo"](host)
    first = learn(SHORT, grpo, seed=0)
    assert learn(SHORT, grpo, seed=0) == first
    assert learn(SHORT, grpo, seed=1) != first
    # Without equal states GiGPO is GRPO: the control says that nothing else differs.
    assert learn(SHORT, METHODS["gigpo, unique anchors"](host), seed=0) == first


@pytest.mark.parametrize("name", ARMS)
async def test_every_arm_starts_alike_and_keeps_its_budget(name: str) -> None:
    host, arm = load_host(), ARMS[name]
    method = host.create("methods", arm.method, {}, given={"host": host})
    setting = SETTINGS_OF_CHAINS["two uncertain calls of six"]
    told: dict[str, Any] = dict(await learn_a_chain(setting, arm, method, seed=0, batches=2))
    table, answers = drawn(setting, seed=0)
    begin = float(table.chances()[np.arange(6), list(answers)].prod())
    assert begin == pytest.approx(SURE**4 / TOOLS**2)
    assert told["trajectories"][0] <= arm.members
    # What is begun is played to its end, so a budget of tokens may be exceeded by one round.
    assert told["tokens"][0] <= TOKENS + 6
    assert np.isfinite(told["success"][0])


def test_hints_are_read_and_are_no_part_of_a_place() -> None:
    places = Places()
    hinted = places.render((Message("user", "0\n\nA solution begins like this: 3, 1."),), ())
    assert hinted.tolist() == [HINT + 3, HINT + 1, PLACE]
    assert places.render((Message("user", "4"),), ()).tolist() == [PLACE + 4]


def test_a_ratio_of_one_is_exact_and_a_clipped_one_has_no_slope() -> None:
    batch = load_host().create("methods", "grpo").columns(Player(SHORT, Table(0.1, beginner()), 0).groups())
    size = len(batch.columns)
    sampled = batch.columns.behavior_logprobs.astype(np.float64)
    good = replace(batch, advantage=np.ones(size, np.float32))
    bad = replace(batch, advantage=-np.ones(size, np.float32))
    assert (slope(sampled + 1e-7, good) == 1.0).all()
    assert (slope(sampled + np.log(1.5), good) == 0.0).all()
    assert slope(sampled + np.log(1.5), bad) == pytest.approx(np.full(size, 1.5))
    assert (slope(sampled + np.log(0.5), bad) == 0.0).all()
    assert slope(sampled + np.log(0.5), good) == pytest.approx(np.full(size, 0.5))


def test_the_tables_of_the_page_are_those_of_the_cells() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert written(text) == text, "run: PYTHONPATH=benchmarks python -m learning.page"

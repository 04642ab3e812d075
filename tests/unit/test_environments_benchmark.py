"""The benchmark of environments finds them through the host, plays them anywhere alike, and says what it leaves out."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

import pytest
from keydoor.env import KeyDoor
from support import memory
from support.one_environment import _interpreter, places, play, record
from support.results import options

import environments
from agentrl import Lazy, OwnVenv
from agentrl.plugins import Host


class Plugin:
    def agentrl_environments(self):
        return {
            "here": KeyDoor,
            "away": Lazy("nowhere:World", ("no_such_package_at_all",), "", "somewhere"),
            "apart": OwnVenv("keydoor.env:KeyDoor", ("no-such-requirement==9",)),
            "asking": asking,
        }


def asking(*, path: str) -> KeyDoor:
    return KeyDoor(size=int(path))


def test_what_is_not_installed_or_needs_options_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRL_VENVS", str(tmp_path))
    host = Host()
    host.register(Plugin(), "worlds")
    assert environments.left_out(host, "here", {}) == ""
    assert "needs no_such_package_at_all. Run: pip install" in environments.left_out(host, "away", {})
    assert "Run: agentrl env install apart" in environments.left_out(host, "apart", {})
    assert "path" in environments.left_out(host, "asking", {})
    assert "--options asking KEY=VALUE" in environments.left_out(host, "asking", {})
    assert environments.left_out(host, "asking", environments.settings([["asking", 'path="4"']])["asking"]) == ""


async def test_the_recorded_episodes_are_won_again_in_every_place(tmp_path: Path) -> None:
    where = places(KeyDoor(), KeyDoor, tmp_path / "venv")
    assert list(where) == ["loop", "thread", "process", "own venv"]
    who, lines, first = await record(where["loop"], list(islice(KeyDoor().tasks("train"), 2)))
    assert who == "oracle" and first > 0 and all(len(line.actions) >= 5 for line in lines)
    for place in ("loop", "thread"):
        done = await play(where[place], [lines[0]], 0.0)
        assert (done.steps, len(done.resets)) == (len(lines[0].actions), 1)


def test_an_environment_that_its_author_put_into_a_process_stays_there(tmp_path: Path) -> None:
    class Apart(KeyDoor):
        runs_in = "process"

    assert list(places(Apart(), Apart, tmp_path / "venv")) == ["process"]


def chosen(*words: str) -> argparse.Namespace:
    parser = options("")
    parser.add_argument("--only", nargs="+", default=[])
    return parser.parse_args(words)


def test_a_piece_keeps_the_other_rows_with_the_conditions_that_they_had(tmp_path: Path) -> None:
    out = tmp_path / "told.json"
    rows = {"old": {"steps": 1}, "newer": {"steps": 2, "conditions": {"commit": "b"}}, "again": {"steps": 3}}
    told = {"environments": rows, "left_out": {"again": "it was late", "never": "no data"}}
    out.write_text(json.dumps({"quick": False, "measured": told, "conditions": {"commit": "a"}}))
    found, missing = environments.kept(chosen("--only", "again", "--out", str(out)))
    assert found["old"] == {"steps": 1, "conditions": {"commit": "a"}}
    assert found["newer"] == {"steps": 2, "conditions": {"commit": "b"}}
    assert missing == {"never": "no data"}
    assert environments.kept(chosen("--out", str(out))) == ({}, {}), "a run of all begins anew"
    with pytest.raises(SystemExit, match="holds a run without --quick"):
        environments.kept(chosen("--quick", "--only", "again", "--out", str(out)))


def test_an_interpreter_of_its_own_has_the_programs_that_packages_look_for_beside_it(tmp_path: Path) -> None:
    python = Path(_interpreter(tmp_path / "venv"))
    assert python.with_name("agentrl").exists() and python.resolve() == Path(sys.executable).resolve()


def test_memory_counts_this_process_and_its_children() -> None:
    assert memory.proportional(memory.family()) > 1 << 20
    assert memory.proportional({1 << 30}) == 0

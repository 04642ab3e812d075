"""The doctor's looks: none stops the others, each is a line with what is lost and what brings it."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest

from agentrl.cli.doctor import print_json, table
from agentrl.cli.main import run as command
from agentrl.doctor.installed import installed_probes
from agentrl.doctor.machine import disk, machine_probes, packages, ports, processor, python
from agentrl.doctor.probe import Finding, Line, Probe, examine, said_by, sound
from agentrl.doctor.programs import program_probes
from agentrl.plugins import Entry, Host, load_host


def probe(name: str, look: object, *, required: bool = False) -> Probe:
    return Probe(name, look, f"what {name} gives", f"install {name}", required)  # type: ignore[arg-type]


def crash() -> Finding:
    raise OSError("no such device")


def test_a_look_that_crashes_or_hangs_is_a_line_and_the_others_are_taken() -> None:
    forever = threading.Event()
    try:
        lines = examine(
            [
                probe("good", lambda: Finding("ok", "version 3")),
                probe("hanging", lambda: forever.wait() and Finding("ok", "")),
                probe("crashing", crash, required=True),
                probe("absent", lambda: Finding("missing", "not installed")),
            ],
            deadline=0.3,
        )
    finally:
        forever.set()
    assert lines == [
        Line("good", "ok", "version 3", "", "", False),
        Line("hanging", "broken", "no answer within 0.3 s", "what hanging gives", "install hanging", False),
        Line("crashing", "broken", "OSError: no such device", "what crashing gives", "install crashing", True),
        Line("absent", "missing", "not installed", "what absent gives", "install absent", False),
    ]
    assert not sound(lines) and sound(lines[:2]) and sound(lines[3:])
    shown = "\n".join(table(lines))
    assert "lost: what absent gives · fix: install absent" in shown
    assert shown.endswith("1 ok, 1 missing, 2 broken; required and broken: crashing")


def test_what_every_machine_of_ours_has_is_found() -> None:
    assert [look().state for look in (python, packages, ports, disk)] == ["ok"] * 4
    assert "cores" in processor().detail and processor().state in ("ok", "missing")


def test_every_probe_says_what_is_lost_and_what_brings_it() -> None:
    probes = [*machine_probes(), *program_probes(), *installed_probes(load_host())]
    names = [one.name for one in probes]
    assert len(names) == len(set(names))
    wanted = {"python", "torch", "gpu", "transformers", "vllm", "memory", "/dev/shm", "disk", "ports", "chromium"}
    assert wanted | {"x server", "docker", "bubblewrap", "libreoffice", "plugins", "models"} <= set(names)
    assert all(one.fix and (one.feature or one.name == "plugins") for one in probes)
    assert {one.name for one in probes if one.required} == {"python", "packages", "torch", "disk"}


def test_a_broken_plugin_has_a_line_with_its_reason(tmp_path: Path) -> None:
    host = Host()
    host._plugins.append(Entry("plugins", "shop", "shop-worlds", "1.0", "broken", "ImportError: no till (shop.py:3)"))
    lines = {line.check: line for line in examine(installed_probes(host)[:2])}
    assert lines["plugins"].state == "broken" and lines["plugins"].detail.startswith("0 of 1 load")
    assert lines["plugin shop"].detail == "shop-worlds: ImportError: no till (shop.py:3)"
    assert lines["plugin shop"].fix == "fix or uninstall shop-worlds"


def test_a_command_is_cut_at_its_deadline_and_its_last_line_is_kept() -> None:
    assert said_by(["sh", "-c", "echo one; echo two"], 5) == (0, "two")
    assert said_by(["sh", "-c", "echo no >&2; exit 3"], 5) == (3, "no")
    with pytest.raises(subprocess.TimeoutExpired):
        said_by(["sleep", "30"], 0.05)


def test_a_folder_without_episodes_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        command(["doctor", str(tmp_path)])
    assert exit.value.code == 2 and "is no run and no evaluation" in capsys.readouterr().err


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"ok": True, "checks": [Line("x", "ok", "y", "", "", False)]})
    told = {"check": "x", "state": "ok", "detail": "y", "lost": "", "fix": "", "required": False}
    assert json.loads(capsys.readouterr().out) == {"ok": True, "checks": [told]}

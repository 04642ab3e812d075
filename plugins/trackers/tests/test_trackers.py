"""Each tracker keeps what it is given; one whose library is missing says how to install it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from agentrl_trackers import plugin

import agentrl
from agentrl.plugins import Host

CONFIG = {"name": "desk", "training": {"batches": 3}}


@pytest.fixture
def host() -> Host:
    host = Host()
    host.register(plugin)
    return host


def test_registering_imports_no_tracker_library(host: Host) -> None:
    assert [entry.name for entry in host.entries("trackers")] == ["tensorboard", "trackio", "wandb"]
    assert "agentrl_trackers.wandb" not in sys.modules


def test_tensorboard_keeps_every_value_at_its_update(host: Host, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = host.create("trackers", "tensorboard", given={"folder": tmp_path})
    tracker.start("desk", CONFIG)
    for update in (1, 2, 3):
        tracker.log(update, {"reward": update / 4, "success": 0.5})
    tracker.close()
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["reward", "success"]
    assert [(e.step, e.value) for e in events.Scalars("reward")] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert b'"batches": 3' in events.Tensors("desk/config")[0].tensor_proto.string_val[0]


def test_a_restarted_run_keeps_both_parts_in_tensorboard(host: Host, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for update in (1, 2):
        tracker = host.create("trackers", "tensorboard", given={"folder": tmp_path})
        tracker.start("desk", CONFIG)
        tracker.log(update, {"reward": 1.0})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("reward")] == [1, 2]


def test_wandb_writes_offline_without_a_login(host: Host, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason='wandb is not installed: pip install "agentrl-trackers[wandb]"')
    tracker = host.create("trackers", "wandb", {"mode": "offline"}, given={"folder": tmp_path})
    tracker.start("desk", CONFIG)
    tracker.log(1, {"reward": 0.25})
    tracker.log(1, {"reward": 0.5})
    tracker.close()
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"reward" in record.read_bytes()


def test_trackio_keeps_the_values(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio", reason='trackio is not installed: pip install "agentrl-trackers[trackio]"')
    tracker = host.create("trackers", "trackio", {"project": "desk"})
    tracker.start("first", CONFIG)
    tracker.log(1, {"reward": 0.25})
    tracker.close()
    assert list(tmp_path.rglob("desk*"))


def test_an_option_that_a_tracker_lacks_is_refused(host: Host, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
    with pytest.raises(agentrl.AgentRLError, match=r"has no key 'projct'\. It takes no options\."):
        host.create("trackers", "tensorboard", {"projct": "x"}, given={"folder": tmp_path})


def test_a_missing_library_is_named_with_its_pip_line(host: Host, tmp_path: Path) -> None:
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed here, so nothing is missing")
    with pytest.raises(agentrl.AgentRLError, match=r"tracker 'wandb' needs wandb, .* Run: pip install wandb"):
        host.create("trackers", "wandb", given={"folder": tmp_path})

"""What a person sees of a run: the same numbers live in a terminal and line by line in a pipe."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from agentrl.cli.panel import PlainLines, duration, facts, open_progress, render, sparkline, time_split
from agentrl.training.report import ProgressReport, TimeSplit

REPORT = ProgressReport(
    update=24,
    batch=12,
    batches=40,
    reward=0.44,
    reward_interval=(0.39, 0.49),
    success=0.41,
    call_validity=0.985,
    flat_groups=0.11,
    staleness=0.4,
    staleness_max=1,
    tokens_per_second=8123.0,
    time=TimeSplit(generate=6.1, train=3.3, wait=0.6),
    mismatch=0.0007,
    eta=127.0,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_batch_is_one_line_with_every_number() -> None:
    stream = io.StringIO()
    progress = open_progress("desk", stream)
    progress.show(REPORT)
    progress.close()
    assert stream.getvalue() == (
        "batch 12/40  update 24  reward 0.440 [0.390, 0.490]  success 41.0%  calls ok 98%  flat groups 11%  "
        "stale 0.4 (max 1)  mismatch 0.0007  8.1k tok/s  gen 61% train 33% publish 0% wait 6%  2 min 07 s left\n"
    )


def test_what_was_not_measured_is_left_out() -> None:
    bare = replace(REPORT, call_validity=None, mismatch=None, eta=None, staleness_max=0, time=TimeSplit())
    text = "  ".join(facts(bare))
    for word in ("calls ok", "mismatch", "left", "stale", "gen "):
        assert word not in text


def test_a_batch_without_an_update_says_why() -> None:
    assert "no update (no signal)" in facts(replace(REPORT, updated=False, reason="no signal"))


def test_health_is_repeated_only_when_it_changes() -> None:
    stream = io.StringIO()
    lines = PlainLines(stream)
    for health in ((), ("sick",), ("sick",), ()):
        lines.show(replace(REPORT, health=health))
    said = [line.strip() for line in stream.getvalue().splitlines() if "health" in line]
    assert said == ["health: sick", "health: ok again"]


def test_a_terminal_that_cannot_redraw_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_progress("desk", Terminal()), PlainLines)


def test_a_terminal_gets_a_panel_with_curve_and_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = open_progress("desk run", stream)
    progress.show(replace(REPORT, reward=0.1))
    progress.note("evaluation [32 tasks]: success 6.3%")
    progress.show(replace(REPORT, reward=0.9, health=("87% of the groups have equal rewards",)))
    progress.close()
    progress.close()
    shown = stream.getvalue()
    for words in (
        "desk run",
        "batch 12/40",
        "▁█",
        "success 41.0%",
        "evaluation [32 tasks]",
        "equal rewards",
        "health: ok",
    ):
        assert words in shown, words


def test_the_panel_holds_every_fact() -> None:
    from rich.console import Console

    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(render("desk", REPORT, [0.1, 0.44]))
    text = console.export_text()
    assert [fact for fact in facts(REPORT) if fact not in text] == []


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([0.5], "▁"),
        ([1.0, 1.0], "▁▁"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "▁▂▃▄▅▆▇█"),
        ([0.0, float("nan"), 1.0], "▁█"),
    ],
)
def test_a_sparkline_runs_from_least_to_largest(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars


def test_a_long_curve_is_averaged_into_the_width() -> None:
    assert len(sparkline([float(i) for i in range(1000)], width=8)) == 8
    assert sparkline([0.0, 0.0, 1.0, 1.0], width=2) == "▁█"


def test_durations_and_time_split_read_well() -> None:
    assert [duration(s) for s in (0.4, 47.2, 125, 11520)] == ["0 s", "47 s", "2 min 05 s", "3 h 12 min"]
    assert time_split(REPORT) == "gen 61% train 33% publish 0% wait 6%"

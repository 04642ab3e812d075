"""The progress of a run: a live panel in a terminal, plain lines anywhere else.

Both are fed `ProgressReport`s and own no numbers of their own but the reward's history.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

from agentrl.training.report import ProgressReport

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

BARS = "▁▂▃▄▅▆▇█"
SPARKS = 40
"Width of the sparkline in a terminal."


class Progress(Protocol):
    """Where the loop shows how it is going."""

    def show(self, report: ProgressReport) -> None: ...

    def note(self, text: str) -> None:
        """A line that stays, such as an evaluation's result."""
        ...

    def close(self) -> None:
        """Give the terminal back; what was shown last stays. May be called twice."""
        ...


def open_progress(run: str, stream: TextIO | None = None) -> Progress:
    """The live panel where `stream` (standard output by default) is a terminal that can redraw it, else plain lines."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        return PlainLines(stream)
    from rich.console import Console

    console = Console(file=stream)
    # TERM=dumb, as in an editor's shell: a panel would be shown once, at the end.
    return PlainLines(stream) if console.is_dumb_terminal else LivePanel(run, console)


class PlainLines:
    """One line a batch; health lines where their words change (a number that drifts is no news)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._health: tuple[str, ...] = ()

    def show(self, report: ProgressReport) -> None:
        self.note("  ".join(facts(report)))
        words = tuple("".join(letter for letter in line if not letter.isdigit()) for line in report.health)
        if words != self._health:
            self._health = words
            for line in report.health or ("ok again",):
                self.note(f"  health: {line}")

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        self._stream.flush()


class LivePanel:
    """A panel that is redrawn in place; notes scroll by above it."""

    def __init__(self, run: str, console: Console) -> None:
        from rich.live import Live

        self._run = run
        self._rewards: list[float] = []
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def show(self, report: ProgressReport) -> None:
        self._live.start()  # a second start does nothing
        self._rewards.append(report.reward)
        self._live.update(render(self._run, report, self._rewards), refresh=True)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._live.stop()


def facts(report: ProgressReport) -> list[str]:
    """The numbers of one batch as short phrases, the most wanted first; what was not measured is left out."""
    low, high = report.reward_interval
    lines = [
        f"batch {report.batch}/{report.batches}",
        f"update {report.update}" if report.updated else f"no update ({report.reason})",
        f"reward {report.reward:.3f} [{low:.3f}, {high:.3f}]",
        f"success {report.success:.1%}",
    ]
    if report.call_validity is not None:
        lines.append(f"calls ok {report.call_validity:.0%}")
    lines.append(f"flat groups {report.flat_groups:.0%}")
    if report.staleness_max:
        lines.append(f"stale {report.staleness:.1f} (max {report.staleness_max})")
    if report.mismatch is not None:
        lines.append(f"mismatch {report.mismatch:.4f}")
    if report.failed:
        lines.append(f"faults {report.failed:.0%}")
    lines.append(f"{_short(report.tokens_per_second)} tok/s")
    if split := time_split(report):
        lines.append(split)
    if report.eta is not None:
        lines.append(f"{duration(report.eta)} left")
    return lines


def time_split(report: ProgressReport) -> str:
    """`gen 61% train 33% publish 1% wait 5%`; empty where nothing was timed."""
    total = report.time.total
    if total <= 0:
        return ""
    spent = {"gen": report.time.generate, "train": report.time.train}
    spent |= {"publish": report.time.publish, "wait": report.time.wait}
    return " ".join(f"{name} {seconds / total:.0%}" for name, seconds in spent.items())


def sparkline(values: Sequence[float], width: int = SPARKS) -> str:
    """The last `width` values (or means of as many equal stretches) as bars between their least and largest."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) > width:
        edges = [round(i * len(known) / width) for i in range(width + 1)]
        known = [sum(known[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    if span == 0:
        return BARS[0] * len(known)
    return "".join(BARS[min(int((value - low) / span * len(BARS)), len(BARS) - 1)] for value in known)


def duration(seconds: float) -> str:
    """`47 s`, `2 min 05 s`, `3 h 12 min`"""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def render(run: str, report: ProgressReport, rewards: Sequence[float]) -> RenderableType:
    """The panel itself: a grid of numbers, the reward's sparkline, and one health line per trouble."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    first, second, reward, *rest = facts(report)
    grid = Table.grid(padding=(0, 3))
    for row in range(0, len(rest), 3):
        grid.add_row(*rest[row : row + 3])
    curve = Text.assemble(reward, "  ", (sparkline(rewards), "cyan"))
    health = [Text(f"health: {line}", style="yellow") for line in report.health] or [Text("health: ok", style="green")]
    bar = ProgressBar(total=report.batches, completed=report.batch, width=SPARKS)
    body = Group(Text(f"{first}  {second}"), bar, curve, grid, *health)
    return Panel(body, title=Text(run), border_style="dim")


def _short(number: float) -> str:
    return f"{number / 1000:.1f}k" if number >= 1000 else f"{number:.0f}"

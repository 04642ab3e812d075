"""A dataclass stands for its fields on the command line, and reaches the command whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from agentrl.cli.flags import unfolded


@dataclass(frozen=True, slots=True)
class Speed:
    knots: Annotated[int, typer.Option("--knots", "-k", min=0, help="Over ground.")]
    sails: Annotated[list[str] | None, typer.Option("--sail")] = None


@dataclass(frozen=True, slots=True)
class Course:
    degrees: Annotated[float, typer.Option(max=360)] = 90.0


GIVEN: list[tuple[Any, ...]] = []


def sail(
    ship: Annotated[str, typer.Argument()], crew: int = 2, *, speed: Speed, course: Course, log: bool = False
) -> None:
    """Set out."""
    GIVEN.append((ship, crew, speed, course, log))


def told(words: Sequence[str]) -> Any:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(unfolded(sail))
    GIVEN.clear()
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["Ada", "-k", "7"], ("Ada", 2, Speed(7), Course(), False)),
        (
            ["Ada", "--knots", "0", "--sail", "jib", "--sail", "main", "--degrees", "1.5", "--log", "--crew", "3"],
            ("Ada", 3, Speed(0, ["jib", "main"]), Course(1.5), True),
        ),
    ],
)
def test_fields_are_options_and_come_as_the_dataclass(words: list[str], given: tuple[Any, ...]) -> None:
    assert told(words).exit_code == 0
    assert [given] == GIVEN


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Ada"], "'--knots'"),
        (["Ada", "-k", "-1"], "'--knots' / '-k'"),
        (["Ada", "-k", "1", "--degrees", "400"], "'--degrees'"),
    ],
)
def test_bounds_and_what_is_required_hold(words: list[str], said: str) -> None:
    ended = told(words)
    assert ended.exit_code == 2 and said in ended.output and GIVEN == []


def test_help_tells_of_each_field() -> None:
    shown = told(["--help"]).output
    assert all(word in shown for word in ("Set out.", "-k, --knots", "Over ground.", "--degrees", "90.0", "--crew"))


def test_a_name_that_two_have_is_refused() -> None:
    def twice(knots: int, speed: Speed) -> None: ...

    # What annotations name is looked up in the module.
    with pytest.raises(TypeError, match="has the option knots twice"):
        unfolded(twice)

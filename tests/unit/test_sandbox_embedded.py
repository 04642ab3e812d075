"""Code in the embedded interpreter: what it remembers, what stops it, and how its last value is shown."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.errors import ConfigError, InfrastructureFault
from agentrl.plugins import load_host
from agentrl.sandbox import Limits
from agentrl.sandbox.echo import with_echo, without_binding
from agentrl.sandbox.embedded import Embedded, EmbeddedSession
from agentrl.sandbox.printed import Printed

SMALL = Limits(seconds=0.5, memory=32 << 20, output=1000)


@pytest.fixture
async def session() -> AsyncIterator[EmbeddedSession]:
    opened = await Embedded().open(SMALL)
    yield opened
    await opened.close()


async def test_names_stay_and_the_last_value_is_shown(session: EmbeddedSession) -> None:
    assert (await session.run("x = 40\nx + 2")).stdout == "42\n"
    ran = await session.run("def double(n):\n    return 2 * n\nprint(double(x))")
    assert (ran.stdout, ran.stderr, ran.exit, ran.limit, ran.lost) == ("80\n", "", 0, "", False)
    assert (await session.run("x = 5; double(x)")).stdout == "10\n"


async def test_an_error_is_told_as_the_code_was_written(session: EmbeddedSession) -> None:
    ran = await session.run("y = 1\ny / 0")
    assert ran.exit == 1 and not ran.lost
    assert "line 2" in ran.stderr and "    y / 0\n    ~~~~~\n" in ran.stderr and "_ = (" not in ran.stderr
    broken = await session.run("y +* 2")
    assert "SyntaxError" in broken.stderr and "y +* 2" in broken.stderr and "_ = (" not in broken.stderr
    assert (await session.run("y")).stdout == "1\n"


async def test_time_and_memory_end_a_run_and_its_names(session: EmbeddedSession) -> None:
    for code, limit in (("while True: pass", "time"), ("a = []\nwhile True: a.append('x' * 99999)", "memory")):
        await session.run("kept = 1")
        ran = await session.run(code)
        assert (ran.exit, ran.limit, ran.lost) == (None, limit, True)
        assert "NameError" in (await session.run("kept")).stderr


async def test_a_value_that_would_be_huge_to_show_never_reaches_us(session: EmbeddedSession) -> None:
    ran = await session.run("a = [0] * 9\nfor _i in range(9): a = [a] * 9\na")
    assert ran.lost and ran.limit in ("time", "memory") and ran.seconds < 10


async def test_output_is_cut_and_the_run_goes_on(session: EmbeddedSession) -> None:
    ran = await session.run("for i in range(1000): print('abc')\nkept = 3")
    assert ran.limit == "output" and ran.exit == 0
    assert ran.stdout.startswith("abc\nabc\n") and ran.stdout.endswith("[cut: stdout has more than 1,000 bytes]\n")
    assert (await session.run("kept")).stdout == "3\n"


async def test_a_snapshot_goes_on_twice_and_apart(session: EmbeddedSession) -> None:
    await session.run("import random\nseen = [1]")
    kept = await session.snapshot()
    first, second = [await Embedded().open(SMALL, kept) for _ in range(2)]
    await first.run("seen.append(2)")
    shown = [(await s.run("seen, random.random()")).stdout for s in (first, second)]
    assert shown[0].startswith("([1, 2], ") and shown[1].startswith("([1], ")
    assert shown[0].split("], ")[1] == shown[1].split("], ")[1]
    await asyncio.gather(first.close(), second.close())
    with pytest.raises(InfrastructureFault, match="cannot go on from a snapshot"):
        await Embedded().open(SMALL, b"no snapshot")


async def test_chance_and_clock_begin_the_same_in_every_session() -> None:
    code = "import random, time, datetime\n(random.random(), time.time(), datetime.datetime.now())"
    sandboxes = (Embedded(), Embedded(), Embedded(seed=1))
    sessions = [await sandbox.open(SMALL) for sandbox in sandboxes]
    told = [(await session.run(code)).stdout for session in sessions]
    assert told[0] == told[1] != told[2] and told[0]
    await asyncio.gather(*(session.close() for session in sessions))


async def test_a_cancelled_run_leaves_nothing() -> None:
    session = await Embedded().open(Limits(seconds=30))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await session.run("while True: pass")
    async with asyncio.timeout(25):
        await session.close()
        await session.close()


async def test_an_interpreter_that_somebody_kills_is_a_fault_and_one_that_code_ends_is_told(
    session: EmbeddedSession,
) -> None:
    before = children()
    other = await Embedded().open(Limits(seconds=30))
    (process,) = children() - before
    run = asyncio.create_task(other.run("while True: pass"))
    await asyncio.sleep(0)
    os.kill(process, signal.SIGKILL)
    with pytest.raises(InfrastructureFault, match="a session of the sandbox 'embedded' is gone"):
        await run
    await other.close()


def children() -> set[int]:
    """Processes that this one has started and that live."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(word) for path in tasks for word in path.read_text().split()}


async def test_what_it_lacks_and_what_is_no_limit_is_said(session: EmbeddedSession) -> None:
    with pytest.raises(ConfigError, match="'embedded' has no programs; 'bubblewrap' or 'docker' has"):
        await session.command("ls")
    with pytest.raises(ConfigError, match="memory of a sandbox is 0; every limit is above 0"):
        Limits(memory=0)
    assert "1,000,000 are allowed" in (await session.run("1" * 1_000_001)).stderr


def test_the_host_makes_it_by_name() -> None:
    host = load_host()
    assert isinstance(host.create("sandboxes", "embedded", {"seed": 3}), Embedded)
    assert host.check("sandboxes", "embedded", {"sed": 3}) != ()


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("x", "_ = (x\n)\nif _ is not None: print(repr(_))"),
        ("a = 1; a;", "a = 1; _ = (a\n)\nif _ is not None: print(repr(_))"),
        ("if a:\n  b\nc # d", "if a:\n  b\n_ = (c # d\n)\nif _ is not None: print(repr(_))"),
        ("f(a=1)[1:2]", "_ = (f(a=1)[1:2]\n)\nif _ is not None: print(repr(_))"),
        ("lambda a: a", "_ = (lambda a: a\n)\nif _ is not None: print(repr(_))"),
    ],
)
def test_a_last_expression_is_shown(code: str, shown: str) -> None:
    assert with_echo(code) == shown


@pytest.mark.parametrize(
    "code",
    [
        *("", "x = 1", "x += 1", "x: int", "if a: b", "if a: b; c", "for i in r: i", "if a:\n  b", "return 3", "del x"),
        *("import os", "@f\ndef g(): pass", "match x:\n  case 3: y", "(((", "'''", "\x00", "with a as b: c", "pass"),
    ],
)
def test_a_statement_stays_as_it_is(code: str) -> None:
    assert with_echo(code) == code


@given(st.text(alphabet="ab=:;()[]{}\n #'\"\\\t1.@,", max_size=40))
@settings(max_examples=150, deadline=None)
def test_what_parsed_still_parses_and_keeps_its_lines(code: str) -> None:
    shown = with_echo(code)
    if shown == code:
        return
    assert shown.startswith(code[: shown.index("_ = (")])
    try:
        compile(code, "x", "exec")
    except (SyntaxError, ValueError):
        return
    compile(shown, "x", "exec")


def test_marks_below_a_line_move_with_it() -> None:
    assert without_binding("  a\n    _ = (x/0\n         ~~~\nE") == "  a\n    x/0\n    ~~~\nE"


@given(st.lists(st.text(max_size=12), max_size=12), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_printed_keeps_a_limit_of_bytes_and_says_so(pieces: list[str], limit: int) -> None:
    printed = Printed(limit)
    for piece in pieces:
        printed.add("stdout", piece)
    # As shown: a control character takes the four bytes of its escape.
    shown = ["".join("\\x00" if c not in "\t\n\r" and category(c) == "Cc" else c for c in piece) for piece in pieces]
    size = sum(len(piece.encode("utf-8", "replace")) for piece in shown)
    assert printed.over == (size > limit)
    assert printed.text("stdout").endswith(f"[cut: stdout has more than {limit:,} bytes]\n") == (size > limit)
    assert printed.text("stderr") == ""

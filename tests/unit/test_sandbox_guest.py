"""The worker behind `bubblewrap`, `docker` and `unsafe`, its driver against one that lies, its filter of calls."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
from collections.abc import AsyncIterator, Sequence

import pytest

from agentrl.errors import InfrastructureFault, MissingDependencyError
from agentrl.plugins import Host, Lazy, load_host
from agentrl.sandbox import Limits, Session, seccomp
from agentrl.sandbox.bubblewrap import Bubblewrap
from agentrl.sandbox.freezer import Freezer
from agentrl.sandbox.guest import WORKER, Ending, GuestSession
from agentrl.sandbox.local import LocalGuest
from agentrl.sandbox.unsafe import Unsafe

SMALL = Limits(seconds=0.5, memory=256 << 20, output=1000, files=1 << 20)


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    opened = await Unsafe().open(SMALL)
    yield opened
    await opened.close()


async def test_names_files_and_the_last_value_stay(session: Session) -> None:
    assert (await session.run("x = 40\nopen('a', 'w').write('hi')\nx + 2")).stdout == "42\n"
    ran = await session.run("print(open('a').read(), end='')\nx = x + 1")
    assert (ran.stdout, ran.stderr, ran.exit, ran.limit, ran.lost) == ("hi", "", 0, "", False)
    assert (await session.command("cat", "a")).stdout == "hi"
    assert (await session.command("sh", "-c", "echo no >&2; exit 3")).exit == 3


async def test_an_error_names_the_line_of_the_code(session: Session) -> None:
    ran = await session.run("def half(n):\n    return n / 0\nhalf(3)")
    assert ran.exit == 1 and not ran.lost
    assert 'File "<cell 1>", line 3' in ran.stderr and "return n / 0" in ran.stderr and "worker" not in ran.stderr
    assert (await session.run("raise SystemExit(7)")).exit == 7
    assert "SyntaxError" in (await session.run("half(")).stderr


async def test_a_late_run_keeps_its_names_and_its_output(session: Session) -> None:
    await session.run("kept = 5")
    ran = await session.run("print('begun', flush=True)\nwhile True: kept")
    assert (ran.stdout, ran.exit, ran.limit, ran.lost) == ("begun\n", None, "time", False)
    assert (await session.run("kept")).stdout == "5\n"


async def test_a_run_that_holds_out_is_killed_and_the_session_begins_anew(session: Session) -> None:
    ran = await session.run("import signal\nkept = 1\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: kept")
    assert (ran.exit, ran.limit, ran.lost) == (None, "time", True) and ran.seconds < 6
    assert "NameError" in (await session.run("kept")).stderr


async def test_a_fork_is_not_a_second_worker(session: Session) -> None:
    assert (
        await session.run("import os\npid = os.fork()\nif pid == 0: raise ValueError\nos.wait()[0] == pid")
    ).exit == 0
    assert [(await session.run(f"{n}")).stdout for n in range(3)] == ["0\n", "1\n", "2\n"]


async def test_limits_are_named(session: Session) -> None:
    assert (await session.run("print('abc' * 999)")).limit == "output"
    assert (await session.run("open('b', 'w').write('x' * 2_000_000)")).limit == "files"
    assert (await session.run("b'x' * 10**9")).limit == "memory"
    crashed = await session.run("import os\nos._exit(4)")
    assert (crashed.exit, crashed.limit, crashed.lost) == (None, "", True)


async def test_a_cancelled_run_ends_the_guest() -> None:
    session = await Unsafe().open(Limits(seconds=30))
    guest = session.guest
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await session.run("while True: pass")
    assert guest is not None and session.guest is None and await guest.receive() == b""
    await session.close()
    await session.close()
    with pytest.raises(InfrastructureFault, match="was used after `close`"):
        await session.run("1")


async def test_files_go_on_from_a_snapshot_and_names_do_not(session: Session) -> None:
    await session.run("import os\nx = 1\nos.mkdir('d')\nopen('d/a', 'w').write('kept')\nos.symlink('/etc/passwd', 'l')")
    kept = await session.snapshot()
    await session.run("open('d/a', 'w').write('changed')")
    again = await Unsafe().open(SMALL, kept)
    assert (
        await again.run("open('d/a').read(), os.readlink('l') if 'os' in globals() else 0")
    ).stdout == "('kept', 0)\n"
    await again.close()
    with pytest.raises(InfrastructureFault, match="'unsafe' cannot go on from a snapshot: ReadError"):
        await Unsafe().open(SMALL, b"no archive")


async def test_a_snapshot_is_of_the_sessions_folder_wherever_its_code_went(session: Session) -> None:
    assert (await session.run("import os\nos.makedirs('d/d/d')\nos.chdir('d/d/d')\nopen('a', 'w').write('low')")).ok
    again = await Unsafe().open(SMALL, await session.snapshot())
    assert (await again.run("open('d/d/d/a').read()")).stdout == "'low'\n"
    await again.close()


async def test_what_is_printed_cannot_drive_a_terminal(session: Session) -> None:
    ran = await session.run(r"print('\x1b]52;c;eA==\x07 \x9b2J \x00\t\x7f é')")
    assert ran.stdout == "\\x1b]52;c;eA==\\x07 \\x9b2J \\x00\t\\x7f é\n"
    assert (await session.run(r"print('\x00' * 900)")).limit == "output"


async def test_no_program_of_the_system_is_started_for_a_crash(session: Session) -> None:
    assert (await session.run("import resource\nresource.getrlimit(resource.RLIMIT_CORE)")).stdout == "(1, 1)\n"


class Liar:
    """A guest that answers what it is told to, whatever it is asked."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = [frame({"kind": "ready"}), *answers]
        self.ended = False

    async def send(self, data: bytes) -> None:
        return None

    async def receive(self) -> bytes:
        return self._answers.pop(0) if self._answers else b""

    def freezer(self) -> Freezer | None:
        return None

    async def end(self) -> Ending:
        self.ended = True
        return Ending("memory" if not self._answers else "")


def frame(reply: object) -> bytes:
    body = json.dumps(reply).encode()
    return len(body).to_bytes(4, "big") + body


LIES = {
    "an answer to another run": [frame({"kind": "done", "run": 9})],
    "no JSON": [b"\0\0\0\2{]"],
    "a frame that is too long": [b"\x7f\xff\xff\xff"],
    "an unknown kind": [frame({"kind": "exec"})],
    "another type": [frame({"kind": "done", "run": 1, "exit": "0"})],
    "an exit code that no process has": [frame({"kind": "done", "run": 1, "exit": 10**300})],
    "a second beginning": [frame({"kind": "ready"})],
    "another stream": [frame({"kind": "out", "stream": "stdin", "text": "a"})],
    "an archive that is none": [frame({"kind": "file", "text": "?"})],
    "an archive that is too large": [frame({"kind": "file", "text": "AAAA" * 700_000}) for _ in range(6)],
    "silence": [],
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_guest_that_lies_is_ended(lie: str) -> None:
    guests: list[Liar] = []

    async def start() -> Liar:
        guests.append(Liar(LIES[lie]))
        return guests[-1]

    session = GuestSession("liar", SMALL, start)
    await session.begin()
    ran = await session.run("1")
    assert (ran.exit, ran.lost, guests[0].ended) == (None, True, True)
    assert ran.limit == ("memory" if not guests[0]._answers else "")


async def test_an_archive_has_time_of_its_own_so_that_a_full_folder_is_not_late() -> None:
    asked: list[float] = []

    class Told(Liar):
        async def send(self, data: bytes) -> None:
            asked.append(json.loads(data[4:])["seconds"])

    async def start() -> Told:
        return Told([frame({"kind": "done", "run": run}) for run in (1, 2, 3)])

    session = GuestSession("told", SMALL, start)
    await session.begin()
    await session.run("1")
    await session.snapshot()
    await session.restore(b"")
    assert asked == [SMALL.seconds, 30.0, 30.0]


async def test_a_flood_ends_its_guest_and_leaves_others_their_turn() -> None:
    turns = 0

    class Flood(Liar):
        async def receive(self) -> bytes:
            return self._answers.pop() if self._answers else frame({"kind": "out", "text": ""}) * 500

    async def start() -> Flood:
        return Flood([])

    async def another() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(another())
    ran = await GuestSession("flood", Limits(seconds=60), start).run("1")
    beside.cancel()
    assert (ran.exit, ran.lost) == (None, True) and ran.seconds < 60 and turns > 100


class Restless(Freezer):
    """Of a session that stands still `times` times and then never again."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.thawed = 0

    async def freeze(self) -> bool:
        self.times -= 1
        return self.times >= 0

    def thaw(self) -> None:
        self.thawed += 1


async def test_a_session_that_cannot_be_held_still_between_runs_is_ended() -> None:
    freezer = Restless(2)
    guests: list[Runs] = []

    class Runs(Liar):
        def freezer(self) -> Freezer:
            return freezer

    async def start() -> Runs:
        guests.append(Runs([frame({"kind": "done", "run": run}) for run in (1, 2, 3)]))
        return guests[-1]

    session = GuestSession("restless", SMALL, start)
    await session.begin()
    assert (await session.run("1")).ok and (freezer.times, freezer.thawed, guests[0].ended) == (0, 1, False)
    ran = await session.run("1")
    assert (ran.exit, ran.limit, ran.lost, freezer.thawed, guests[0].ended) == (None, "", True, 2, True)


def test_processes_that_are_no_session_are_left_alone() -> None:
    with pytest.raises(InfrastructureFault, match=rf"process {os.getpid()} and \d+ beside it are no session"):
        Freezer(os.getpid(), WORKER)
    with pytest.raises(InfrastructureFault, match=r"held still: .*No such file"):
        Freezer(1 << 30, WORKER)


async def test_a_guest_that_somebody_else_ended_is_a_fault_and_no_observation() -> None:
    class Removed(Liar):
        async def end(self) -> Ending:
            return Ending(fault="its container was removed by somebody else")

    async def start() -> Removed:
        return Removed([])

    session = GuestSession("removed", SMALL, start)
    with pytest.raises(
        InfrastructureFault, match="session of the sandbox 'removed' is gone: its container was removed"
    ):
        await session.run("1")


@pytest.mark.parametrize(("apart", "outside"), [(True, True), (False, False)])
async def test_a_killed_process_is_a_fault_where_nothing_inside_could_have_killed_it(
    apart: bool, outside: bool
) -> None:
    guest = LocalGuest(["sleep", "60"], {"PATH": "/usr/bin:/bin"}, "/", user=None, apart=apart)
    os.kill(guest.pid, signal.SIGKILL)
    assert await guest.receive() == b""
    assert bool((await guest.end()).fault) is outside


async def test_output_that_comes_in_pieces_is_put_together_and_bounded() -> None:
    told = b"".join(frame({"kind": "out", "text": "é" * 300}) for _ in range(9)) + frame({"kind": "done", "run": 1})

    async def start() -> Liar:
        return Liar([told[place : place + 7] for place in range(0, len(told), 7)])

    session = GuestSession("liar", SMALL, start)
    ran = await session.run("1")
    assert ran.limit == "output" and ran.exit == 0 and len(ran.stdout.encode()) < SMALL.output + 60


async def test_a_guest_that_does_not_come_up_is_a_fault() -> None:
    class Dead(Liar):
        async def receive(self) -> bytes:
            return b""

        async def end(self) -> Ending:
            return Ending("", "bwrap: no namespaces here")

    async def start() -> Dead:
        return Dead([])

    with pytest.raises(InfrastructureFault, match=r"'dead' does not start: bwrap: no namespaces here\."):
        await GuestSession("dead", SMALL, start).begin()


def decide(program: bytes, architecture: int, number: int, first: int = 0) -> int:
    """What the kernel would answer: the few instructions that the filter uses, interpreted."""
    lines = [struct.unpack_from("HBBI", program, place) for place in range(0, len(program), 8)]
    data, place, value = {0: number, 4: architecture, 16: first}, 0, 0
    holds = {0x15: int.__eq__, 0x35: int.__ge__, 0x45: int.__and__}
    while True:
        code, yes, no, operand = lines[place]
        if code == 0x20:
            value = data[operand]
        elif code == 0x06:
            return int(operand)
        else:
            place += yes if holds[code](value, operand) else no
        place += 1


X86, ARM = ("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)


@pytest.mark.parametrize(("machine", "architecture", "ptrace", "read"), [(*X86, 101, 0), (*ARM, 117, 63)])
def test_the_filter_refuses_what_it_lists_and_nothing_else(
    machine: str, architecture: int, ptrace: int, read: int
) -> None:
    program = seccomp.program(machine)
    refused = {number for number in range(500) if decide(program, architecture, number) == 0x50001}
    listed = {numbers[machine == "aarch64"] for numbers in seccomp._CALLS.values()} - {-1}
    assert refused == listed and ptrace in refused and read not in refused
    assert decide(program, architecture, 0x40000001) == 0x50001
    assert decide(program, 0x40000003, read) == 0x80000000
    assert seccomp.program("riscv64") == b""


@pytest.mark.parametrize(("machine", "architecture", "clone", "socket"), [(*X86, 56, 41), (*ARM, 220, 198)])
def test_the_filter_reads_which_family_a_socket_has_and_which_namespaces_a_clone_makes(
    machine: str, architecture: int, clone: int, socket: int
) -> None:
    program = seccomp.program(machine)
    fork, thread, user = 0x01200011, 0x003D0F00, 0x10000011
    assert [decide(program, architecture, clone, flags) for flags in (fork, thread)] == [0x7FFF0000] * 2
    assert decide(program, architecture, clone, user) == 0x50001
    assert decide(program, architecture, 435) == 0x50000 | 38
    allowed = {family for family in range(64) if decide(program, architecture, socket, family) == 0x7FFF0000}
    assert allowed == {1, 2, 10, 16} and decide(program, architecture, socket, 40) == 0x50000 | 97


def test_a_missing_program_is_listed_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    entry = {entry.name: entry for entry in load_host().entries("sandboxes")}["bubblewrap"]
    assert (entry.state, entry.detail, entry.install) == ("missing", "needs bwrap", "apt-get install bubblewrap")
    with pytest.raises(MissingDependencyError, match=r"needs bwrap, which is not installed\. Run: apt-get"):
        Bubblewrap()


def test_what_is_missing_of_both_kinds_is_one_command() -> None:
    host = Host()
    lazy = Lazy("a.module:Box", requires=("no_such_module",), programs=(("no-such-program", "its-package"),))
    host.register(type("P", (), {"agentrl_sandboxes": staticmethod(lambda: {"box": lazy})})(), "p")
    (entry,) = host.entries("sandboxes")
    assert entry.detail == "needs no_such_module, no-such-program"
    assert entry.install == "pip install no_such_module && apt-get install its-package"

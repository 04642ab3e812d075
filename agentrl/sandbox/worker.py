"""What runs inside of a sandbox: a Python that keeps its names, asked and answering by frames of JSON.

It shares its process with the code that it runs, so nothing that it says is believed beyond that session.
Standard library only, and one file: it is handed to an interpreter as text.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import errno
import fcntl
import io
import json
import linecache
import math
import os
import resource
import select
import signal
import subprocess
import sys
import tarfile
import threading
import time
import traceback
from types import FrameType
from typing import Any

_SPENT = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})


class _LateError(BaseException):
    """The time of a run is over; not an `Exception`, so that ordinary code does not catch it."""


class Line:
    """Frames: a length of four bytes, then JSON."""

    def __init__(self) -> None:
        # What a child inherits are pipes of ours; these two it does not.
        self._asked, self._answers = os.dup(0), os.dup(1)
        self._lock = threading.RLock()

    def take(self) -> Any:
        """The next request; None at the end."""
        head = self._read(4)
        body = self._read(int.from_bytes(head, "big")) if len(head) == 4 else b""
        return json.loads(body) if body else None

    def send(self, frame: dict[str, object]) -> None:
        body = json.dumps(frame).encode()
        data = memoryview(len(body).to_bytes(4, "big") + body)
        with self._lock:
            while data:
                data = data[os.write(self._answers, data) :]

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (piece := os.read(self._asked, min(size - len(data), 1 << 16))):
            data += piece
        return bytes(data)


class Pump:
    """Takes what any process of the session prints and sends it on as it comes, up to a limit a run."""

    def __init__(self, line: Line, limit: int) -> None:
        self._line, self._limit = line, limit
        self._left: dict[str, int] = {}
        self._lock = threading.Lock()
        self._pipes: dict[int, str] = {}
        for place, stream in ((1, "stdout"), (2, "stderr")):
            ours, theirs = os.pipe()
            os.dup2(theirs, place)
            os.close(theirs)
            os.set_blocking(ours, False)
            self._pipes[ours] = stream
            with contextlib.suppress(OSError):
                fcntl.fcntl(ours, 1031, 1 << 18)  # F_SETPIPE_SZ, which Python 3.9 has no name for
        self.begin()
        threading.stack_size(1 << 18)
        threading.Thread(target=self._forever, daemon=True).start()
        threading.stack_size(0)

    def begin(self) -> None:
        self._left = dict.fromkeys(self._pipes.values(), self._limit)

    def drain(self) -> None:
        """Send everything that was printed before this call."""
        with self._lock:
            for pipe, stream in self._pipes.items():
                # As much as a pipe can hold, and no more: a thread may print on.
                for _ in range(8):
                    try:
                        data = os.read(pipe, 1 << 16)
                    except BlockingIOError:
                        break
                    self._pass_on(stream, data)

    def _pass_on(self, stream: str, data: bytes) -> None:
        # One byte too many is passed on, so that it is seen that something was cut.
        kept = data[: max(0, self._left[stream] + 1)]
        self._left[stream] -= len(kept)
        if kept:
            self._line.send({"kind": "out", "stream": stream, "text": kept.decode("utf-8", "replace")})

    def _forever(self) -> None:
        poll = select.poll()
        for pipe in self._pipes:
            poll.register(pipe, select.POLLIN)
        while True:
            poll.poll()
            self.drain()


class Cells:
    """Runs code in one namespace, as a prompt would."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
        self._count = 0

    def run(self, code: str) -> None:
        """Raises what the code raises."""
        self._count += 1
        name = f"<cell {self._count}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), self._names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), self._names)
            if value is not None:
                self._names["_"] = value
                print(repr(value))


def main(settings: dict[str, Any]) -> None:
    """Serve until the line is closed. `alone`: every other process in sight belongs to this session."""
    line, home = Line(), os.getcwd()  # noqa: PTH109 (pathlib takes as long to import as all else here)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Before there is a second thread, which a filter would not hold for.
    restrict(settings)
    refuse(bytes.fromhex(settings["refuse"]))
    pump = Pump(line, settings["output"])
    signal.signal(signal.SIGALRM, _too_late)
    cells, own = Cells(), os.getpid()
    line.send({"kind": "ready"})
    while (request := line.take()) is not None:
        pump.begin()
        _allow(request["seconds"])
        if "keep" in request or "put" in request:
            code, limit = _one_transfer(line, request, home)
        else:
            code, limit = _one_run(cells, request)
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        if os.getpid() != own:
            # The code forked, and this is the child: its part is over.
            os._exit(code & 0xFF)
        if settings["alone"]:
            _end_the_others()
        pump.drain()
        line.send({"kind": "done", "run": request["run"], "exit": code, "limit": limit})


def restrict(settings: dict[str, Any]) -> None:
    """Hard limits, which the code cannot raise again and every process that it starts inherits."""
    for name, value in (
        ("RLIMIT_AS", settings["memory"]),
        ("RLIMIT_NPROC", settings["processes"]),
        ("RLIMIT_FSIZE", settings["files"]),
        ("RLIMIT_NOFILE", 256),
        # 0 would still start the program that a system may have for cores, outside and as root; 1 does not.
        ("RLIMIT_CORE", 1),
    ):
        resource.setrlimit(getattr(resource, name), (value, value))


def refuse(program: bytes) -> None:
    """Hold system calls against a filter from now on. Raises `OSError` where the kernel does not take it."""
    if not program:
        return
    import ctypes

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    lines = ctypes.create_string_buffer(program, len(program))
    given = Filter(len(program) // 8, ctypes.addressof(lines))
    # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP with SECCOMP_MODE_FILTER
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(given), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def _allow(seconds: float) -> None:
    """So much time of a core from now on, and a little more; then the system ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = math.ceil(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (spent, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _one_run(cells: Cells, request: dict[str, Any]) -> tuple[int, str]:
    """Exit code and limit."""
    signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    try:
        if "words" in request:
            return subprocess.run(request["words"], stdin=subprocess.DEVNULL, check=False).returncode, ""
        cells.run(request["code"])
    except _LateError:
        return -1, "time"
    except SystemExit as ended:
        if isinstance(ended.code, str):
            _complain(ended.code)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None), ""
    except BaseException as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _complain("".join(traceback.format_exception(type(error), error, _own(error))))
        return 1, _limit_of(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return 0, ""


def _one_transfer(line: Line, request: dict[str, Any], home: str) -> tuple[int, str]:
    """The folder of the session, wherever its code is now, as an archive in pieces, or an archive unpacked there."""
    try:
        if "put" in request:
            with tarfile.open(fileobj=io.BytesIO(base64.b64decode(request["put"]))) as archive:
                archive.extractall(home)
            return 0, ""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
            _pack(archive, home)
        data = packed.getvalue()
        for place in range(0, len(data), 1 << 20):
            line.send({"kind": "file", "text": base64.b64encode(data[place : place + (1 << 20)]).decode()})
    except BaseException as error:
        _complain(repr(error))
        return 1, _limit_of(error)
    return 0, ""


def _pack(archive: tarfile.TarFile, home: str) -> None:
    """Everything in the folder but what may not be read, however deep."""
    folders = [home]
    while folders:
        try:
            entries = sorted(os.scandir(folders.pop()), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            with contextlib.suppress(OSError):
                archive.add(entry.path, os.path.relpath(entry.path, home), recursive=False)
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)


def _too_late(number: int, frame: FrameType | None) -> None:
    raise _LateError


def _own(error: BaseException) -> Any:
    """The traceback from the code's first line on."""
    place = error.__traceback__
    while place is not None and not place.tb_frame.f_code.co_filename.startswith("<cell "):
        place = place.tb_next
    return place


def _limit_of(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError) and error.errno in _SPENT:
        return "files"
    if isinstance(error, BlockingIOError) or "can't start new thread" in str(error):
        return "processes"
    return ""


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.rstrip("\n").encode("utf-8", "replace") + b"\n")


def _end_the_others() -> None:
    """Until nobody is left: what dies may just have started another one."""
    for _ in range(200):
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            return
        with contextlib.suppress(OSError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.001)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

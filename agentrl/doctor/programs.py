"""Programs that environments start: a browser, a display, containers, a sandbox, an office."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agentrl.doctor.probe import Finding, Probe, said_by

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program_probes() -> list[Probe]:
    return [
        Probe("chromium", chromium, "environments in a browser, the tests of the viewer", "apt-get install chromium"),
        Probe("x server", xvfb, "environments on a desktop", "apt-get install xvfb"),
        Probe("docker", docker, "environments in containers", "install Docker, start its daemon, join its group"),
        Probe("bubblewrap", bubblewrap, "commands in a sandbox", "apt-get install bubblewrap"),
        Probe("libreoffice", libreoffice, "office environments", "apt-get install libreoffice"),
    ]


def chromium() -> Finding:
    """It loads a page of its own, without a screen and without the network."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        return Finding("missing", f"none of {', '.join(BROWSERS)} is on the path")
    page = "data:text/html,<p>agentrl doctor</p>"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={folder}",
        ]
        code, said = _answer([found, *flags, "--dump-dom", page], 40)
    if code or "agentrl doctor" not in said:
        return Finding("broken", f"{found} did not show a page (exit {code}): {said}")
    return Finding("ok", f"{found} shows a page")


def xvfb() -> Finding:
    """A display of its own is opened, and its number read."""
    found = shutil.which("Xvfb")
    if found is None:
        return Finding("missing", "no Xvfb on the path")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        [found, "-displayfd", str(writing), "-screen", "0", "64x64x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as said:
            display = said.readline().strip()
        if display:
            return Finding("ok", f"{found} opened display :{display}")
        return Finding("broken", _last(server.communicate(timeout=10)[1].decode(errors="replace")))
    finally:
        server.kill()
        server.wait()


def docker() -> Finding:
    found = shutil.which("docker")
    if found is None:
        return Finding("missing", "no docker on the path")
    code, said = _answer([found, "info", "--format", "{{.ServerVersion}}"], 15)
    return Finding("broken", f"its daemon: {said}") if code else Finding("ok", f"daemon {said}")


def bubblewrap() -> Finding:
    """A command is really run in it: kernels and containers may forbid that."""
    found = shutil.which("bwrap")
    if found is None:
        return Finding("missing", "no bwrap on the path")
    inside = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "--die-with-parent", "true"]
    code, said = _answer([found, *inside], 15)
    return Finding("broken", f"it does not start here: {said}") if code else Finding("ok", f"{found} ran a command")


def libreoffice() -> Finding:
    found = shutil.which("soffice") or shutil.which("libreoffice")
    if found is None:
        return Finding("missing", "neither soffice nor libreoffice is on the path")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        profile = Path(folder).as_uri()
        code, said = _answer([found, f"-env:UserInstallation={profile}", "--headless", "--version"], 40)
    return Finding("broken" if code else "ok", said or found)


def _answer(command: Sequence[str], deadline: float) -> tuple[int, str]:
    try:
        return said_by(command, deadline)
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {deadline:g} s"


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"

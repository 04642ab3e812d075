"""Environments with a virtual environment of their own, for requirements that conflict with ours.

A plugin declares one as an `OwnVenv`. Its code and what a worker of ours needs are lent to that interpreter; only the
declared requirements are installed there.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.errors import MissingDependencyError, PluginError
from agentrl.protocols import Environment
from agentrl.remote.address import Address
from agentrl.remote.environment import describe, open_remote
from agentrl.types import JSON

SPARE = (
    *("msgspec", "numpy", "pluggy"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
)
"Packages of ours that a worker takes where its own interpreter has none of that name."
_DONE = "agentrl.json"


@dataclass(frozen=True, slots=True)
class OwnVenv:
    """What a plugin registers in place of a class that needs other versions than ours; it is not imported here."""

    target: str
    "`module:Class`. Its top-level package is lent to the worker, so it need not be installed there."
    requirements: tuple[str, ...]
    'What pip is given, such as `("pydantic<2",)`.'
    summary: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.]+:[\w.]+", self.target):
            raise PluginError(f"OwnVenv target {self.target!r} is not of the form 'module:Class'.")
        if isinstance(self.requirements, str) or not self.requirements:
            raise PluginError(
                f"OwnVenv of {self.target!r} has requirements {self.requirements!r}; a tuple of one or more is needed. "
                "An environment without any is registered as `agentrl.Lazy`."
            )

    @property
    def folder(self) -> Path:
        """Of the virtual environment: another one for other requirements or another Python."""
        python = [sys.base_prefix, *sys.version_info[:3]]
        told = json.dumps([sorted(self.requirements), python])
        module = self.target.partition(":")[0].partition(".")[0]
        return venvs_folder() / f"{module}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    @property
    def ready(self) -> bool:
        """It is installed: `agentrl env install` has gone to its end."""
        return (self.folder / _DONE).is_file()

    @property
    def address(self) -> Address:
        """Raises `PluginError` where the target's package has no file here."""
        module, _, name = self.target.partition(":")
        own = {top: _file(top) for top in ("agentrl", module.partition(".")[0])}
        if not all(own.values()):
            raise PluginError(f"OwnVenv target {self.target!r}: no file of that package can be found.")
        spare = {top: file for top in SPARE if (file := _file(top))}
        python = str(self.folder / "bin" / "python")
        return Address(module, name, python=python, lent=_pairs(own), spare=_pairs(spare))

    def factory(self, name: str) -> Factory:
        """What makes the environment that is registered as `name`. Raises `MissingDependencyError`."""
        if not self.ready:
            raise MissingDependencyError(
                f"environment {name!r} runs in a virtual environment of its own, which is not installed. "
                f"Run: {install_command(name)}"
            )
        return Factory(name, self.address)


@dataclass(frozen=True, slots=True)
class Factory:
    """Makes environments in an interpreter of their own; its signature is the class's there."""

    name: str
    address: Address

    def __call__(self, **options: JSON) -> Environment:
        return open_remote(self.address, options, self.name)

    @property
    def __signature__(self) -> inspect.Signature:
        told = describe(self.address)
        kind = inspect.Parameter.KEYWORD_ONLY
        needed = [inspect.Parameter(name, kind) for name in told.required]
        others = [inspect.Parameter(name, kind, default=value) for name, value in told.options.items()]
        more = [inspect.Parameter("_", inspect.Parameter.VAR_KEYWORD)] if told.open_ended else []
        return inspect.Signature([*needed, *others, *more])


def install(own: OwnVenv, tell: Callable[[str], None]) -> Path:
    """Make the virtual environment, unless it is there. Raises `PluginError` with pip's last lines where that fails.

    Of two at once, also in two processes, the second waits for the first.
    """
    folder = own.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if own.ready:
            tell(f"already there: {folder}")
        else:
            _make(own, tell)
    return folder


def _make(own: OwnVenv, tell: Callable[[str], None]) -> None:
    import venv

    folder = own.folder
    tell(f"making {folder} with {', '.join(own.requirements)}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True, symlinks=True)
    python = str(folder / "bin" / "python")
    command = [python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *own.requirements]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        last = "\n".join((ran.stderr or ran.stdout).strip().splitlines()[-8:])
        raise PluginError(f"pip could not install {', '.join(own.requirements)} into {folder}:\n{last}")
    try:
        describe(own.address)
    except Exception as error:
        raise PluginError(f"{own.target} cannot be loaded in {folder}: {error}") from error
    # Last: a folder without this file is made anew.
    (folder / _DONE).write_text(json.dumps({"requirements": own.requirements}), encoding="utf-8")


def install_command(name: str) -> str:
    return f"agentrl env install {name}"


def venvs_folder() -> Path:
    """`AGENTRL_VENVS`, else the user's data folder."""
    import platformdirs

    named = os.environ.get("AGENTRL_VENVS")
    return Path(named).expanduser().absolute() if named else platformdirs.user_data_path("agentrl") / "venvs"


def _file(package: str) -> str | None:
    spec = importlib.util.find_spec(package)
    return spec.origin if spec is not None and spec.has_location else None


def _pairs(files: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(files.items()))

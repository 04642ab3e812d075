"""Where plugins come from: installed entry points, files and modules that the user names, and why one fails to import.

Nothing here raises for an installed plugin: its failure is returned in words, and the command line lives on.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlparse

from agentrl.errors import PluginError, UnknownNameError

GROUP = "agentrl"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who brought a plugin."""

    plugin: str
    "Name of the entry point, of the module or of the file."
    distribution: str
    version: str = ""
    checkout: str = ""
    "Folder of an editable install; empty otherwise."

    def install_command(self, extra: str, requires: Sequence[str]) -> str:
        """The pip line that brings what an optional part needs."""
        if extra and self.checkout:
            return f'pip install -e "{self.checkout}[{extra}]"'
        if extra and self.version:
            return f'pip install "{self.distribution}[{extra}]"'
        return f"pip install {' '.join(module.partition('.')[0] for module in requires)}"


@dataclass(frozen=True, slots=True)
class Found:
    """An installed plugin: the imported object, or why there is none."""

    origin: Origin
    plugin: Any = None
    failure: str = ""


def installed() -> Iterator[Found]:
    """Every plugin with an entry point in group `agentrl`, in order of distribution and name."""
    for point in points(GROUP):
        origin = origin_of(point)
        try:
            yield Found(origin, point.load())
        except (Exception, SystemExit) as error:
            yield Found(origin, failure=reason(error))


def points(group: str) -> list[importlib.metadata.EntryPoint]:
    """The entry points of a group, in order of distribution and name."""
    found: dict[tuple[str, str], importlib.metadata.EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=group):
        # One distribution may be seen twice, through a wheel and an editable install of it.
        found.setdefault((point.dist.name if point.dist else "", point.name), point)
    return [point for _, point in sorted(found.items())]


def origin_of(point: importlib.metadata.EntryPoint) -> Origin:
    if point.dist is None:
        return Origin(point.name, "unknown distribution")
    return Origin(point.name, point.dist.name, point.dist.version, _checkout(point.dist))


def named(target: str) -> Found:
    """A plugin that the user names: `path/to/file.py` or `a.module`.

    Raises `UnknownNameError` where there is no such file, `PluginError` where it cannot be imported.
    """
    path = Path(target)
    try:
        if path.suffix == ".py":
            if not path.is_file():
                raise UnknownNameError(
                    f"there is no file {target!r} (looked in {Path.cwd()}). --plugin takes a file or a module."
                )
            return Found(Origin(path.stem, target), _import_file(path))
        return Found(Origin(target, target), importlib.import_module(target))
    except (PluginError, UnknownNameError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"the plugin {target!r} cannot be imported: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """An import failure in one line: what, and the file and line where it happened."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})"
    here = Path(__file__)
    own = ("importlib", *(str(here.with_name(f"{name}.py")) for name in ("discovery", "registration", "plugins")))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(mark in f.filename for mark in own)]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def missing_modules(requires: Sequence[str]) -> tuple[str, ...]:
    """Those of `requires` that are not installed, found without importing them."""
    return tuple(name for name in requires if not _is_importable(name))


def _is_importable(module: str) -> bool:
    top = module.partition(".")[0]
    if top in sys.modules:
        return True
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    # A folder of that name on the path, such as the one that wandb logs into, has no origin and is not the package.
    return spec is not None and spec.origin is not None


def _import_file(path: Path) -> ModuleType:
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path.resolve()):
        return loaded
    if loaded is not None:
        name = f"{path.stem}_{abs(hash(path.resolve())):x}"
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.append(beside)  # Last, so that the files beside a plugin can be imported and hide nothing.
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file. Name one that ends in .py, or an installed module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _checkout(distribution: importlib.metadata.Distribution) -> str:
    record = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not record.get("dir_info", {}).get("editable"):
        return ""
    return unquote(urlparse(record["url"]).path)

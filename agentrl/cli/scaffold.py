"""`agentrl new env NAME`: writes an environment package that passes its own check.

Nothing that exists is ever written over.
"""

from __future__ import annotations

import keyword
import re
import sys
from importlib import resources
from pathlib import Path
from string import Template

from agentrl.errors import ConfigError

_FILES = {
    "{name}.py": "environment.py.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "test_{name}.py": "test.py.txt",
}
_TAKEN = {"agentrl", "test", "tests", "conftest"}


def new_environment(name: str, folder: Path) -> Path:
    """Write the package `folder/name` and return it. Raises `ConfigError` for a bad name or where it exists."""
    check_name(name)
    target = folder / name
    if target.exists():
        raise ConfigError(f"{target} exists already and is not written over. Choose another name or remove it.")
    values = {"name": name, "class_name": class_name(name), "distribution": name.replace("_", "-")}
    templates = resources.files("agentrl.cli") / "templates"
    written = {
        path.format(name=name): Template((templates / source).read_text(encoding="utf-8")).substitute(values)
        for path, source in _FILES.items()
    }
    try:
        target.mkdir(parents=True)
        for path, text in written.items():
            (target / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error}. Choose a folder that can be.") from error
    return target


def check_name(name: str) -> None:
    """A name must do as a module, a distribution and a recipe value. Raises `ConfigError`."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        near = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
        hint = f" Try {near!r}." if re.fullmatch(r"[a-z]\w*", near) else ""
        raise ConfigError(f"{name!r} cannot name an environment: lower-case letters, digits and single '_'.{hint}")
    if keyword.iskeyword(name) or name in sys.stdlib_module_names or name in _TAKEN:
        raise ConfigError(f"{name!r} is a name of Python or of this library: its module could not be imported.")


def class_name(name: str) -> str:
    """`tool_desk` to `ToolDesk`; `a_b` to `A_B`, since `AB` would be read back as `ab`."""
    parts = [part[0].upper() + part[1:] for part in name.split("_")]
    joined = "".join(parts)
    return joined if re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", joined).lower() == name else "_".join(parts)

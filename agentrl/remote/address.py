"""How another process finds a class: by module, name and file.

Nothing is pickled: what travels are names and JSON.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Address:
    """Where an environment is made. Workers of one address stand in for each other."""

    module: str
    name: str
    "Qualified name in the module."
    file: str = ""
    "The module's file, for one that no import finds (a plugin file, a test)."
    python: str = sys.executable
    "The interpreter that runs the worker."
    lent: tuple[tuple[str, str], ...] = ()
    "Top-level packages by name and file that an interpreter with packages of its own takes from us."
    spare: tuple[tuple[str, str], ...] = ()
    "The same, where it has none of that name."


def address_of(target: Any) -> Address | None:
    """The address of a class or function in this interpreter; None where no other process can import it."""
    module, name = getattr(target, "__module__", ""), getattr(target, "__qualname__", "")
    home = sys.modules.get(module)
    try:
        found = functools.reduce(getattr, name.split("."), home)
    except AttributeError:
        return None
    file = getattr(home, "__file__", None)
    return Address(module, name, file) if found is target and file else None


def locate(address: Address) -> Callable[..., Any]:
    """The class or function at `address`, imported. Raises what the import raises."""
    # A worker has a `__main__` of its own.
    name = "agentrl_main" if address.module == "__main__" else address.module
    module = sys.modules.get(name)
    if module is None and name == address.module:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            # Something that the module needs is missing: say that, instead of trying again by file.
            if not address.file or error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
    # A folder of the same name in the working directory is found first, as an empty namespace package.
    if module is None or (address.file and getattr(module, "__file__", None) != address.file):
        spec = importlib.util.spec_from_file_location(name, address.file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{address.file} cannot be loaded as the module {name}.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    found: Any = module
    for step in address.name.split("."):
        found = getattr(found, step)
    target: Callable[..., Any] = found
    return target

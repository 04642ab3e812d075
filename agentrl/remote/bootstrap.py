"""The first lines of a worker process: `python bootstrap.py FD PATH LENT SPARE`, all but the first as JSON.

Standard library only. An interpreter with packages of its own is lent those of the driver that LENT names, and those
in SPARE where it has none of that name; standard output goes to standard error, so that an author may print.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path


class Lent:
    """Finds packages by the files of another interpreter."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        file = self._files.get(name)
        if file is None:
            return None
        folder = [str(Path(file).parent)] if file.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(name, file, submodule_search_locations=folder)


def main(descriptor: int, path: list[str], lent: dict[str, str], spare: dict[str, str]) -> None:
    os.set_inheritable(descriptor, False)
    os.dup2(2, 1)
    faulthandler.enable()
    if path:
        sys.path[:] = path
    sys.meta_path.insert(0, Lent(lent))  # type: ignore[arg-type]
    sys.meta_path.append(Lent(spare))  # type: ignore[arg-type]
    importlib.import_module("agentrl.serve").serve(descriptor)


if __name__ == "__main__":
    main(int(sys.argv[1]), *(json.loads(argument) for argument in sys.argv[2:]))

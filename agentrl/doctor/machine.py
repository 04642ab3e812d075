"""The machine and the libraries that compute on it: Python, torch, GPU, vLLM, memory, disk, ports."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from agentrl.discovery import missing_modules
from agentrl.doctor.probe import Finding, Probe, said_by

GIB = 1 << 30
BASE = ("pluggy", "pydantic", "msgspec", "numpy", "httpx", "typer", "rich", "stamina", "platformdirs", "renderers")
"What agentrl is installed with."
LEAST_DISK, LEAST_SHM = 1 * GIB, 64 << 20
_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads(),
    "gpus": [[torch.cuda.get_device_name(i), torch.cuda.get_device_properties(i).total_memory] for i in
             range(torch.cuda.device_count())] if cuda else [],
    "bf16": torch.cuda.is_bf16_supported() if cuda else None,
    "sum": float(torch.ones(64, 64).matmul(torch.ones(64, 64)).sum()),
}))
"""


def machine_probes() -> list[Probe]:
    train = 'pip install -e ".[train]"'
    return [
        Probe("python", python, "everything", "install Python 3.11 or newer", required=True),
        Probe("packages", packages, "everything", "pip install -e .", required=True),
        Probe("torch", torch, "training, and sampling in process", train, required=True),
        Probe("transformers", transformers, "training, and sampling in process", train),
        Probe(
            "gpu",
            gpu,
            "speed: models above some 100M parameters are slow on a CPU",
            "a machine with an NVIDIA GPU; small models train here",
        ),
        Probe("cpu", processor, "bf16 on this CPU: it would be emulated", 'use dtype = "float32"'),
        Probe("vllm", vllm, "the engine vllm", "make test (it installs vLLM's build for this machine)"),
        Probe("memory", memory, "room for models and environments", "stop other programs, or choose a smaller model"),
        Probe("/dev/shm", shared_memory, "weights to vLLM through shared memory, browsers", _REMOUNT),
        Probe("disk", disk, "checkpoints, episodes, results", "free space here", required=True),
        Probe("ports", ports, "servers on this machine: vLLM, the viewer", "allow programs to listen on 127.0.0.1"),
        _package("viewer", "starlette", "agentrl view", "view"),
        _package("parquet", "pyarrow", "tables as parquet", "data"),
        _package("plots", "matplotlib", "curve.png and the plots of a report", "train"),
    ]


_REMOUNT = "mount -o remount,size=1G /dev/shm (in Docker: --shm-size 1g)"


def python() -> Finding:
    told = f"{platform.python_version()} in {sys.prefix}, {platform.system()} {platform.machine()}"
    return Finding("ok" if sys.version_info >= (3, 11) else "broken", told)


def packages() -> Finding:
    gone = missing_modules(BASE)
    if gone:
        return Finding("broken", f"{', '.join(gone)} cannot be imported")
    for name in BASE:
        import_module(name)
    from agentrl import __version__

    return Finding("ok", f"agentrl {__version__}; its {len(BASE)} packages can be imported")


def torch() -> Finding:
    if missing_modules(["torch"]):
        return Finding("missing", "not installed")
    code, said = _python(_TORCH)
    if code:
        return Finding("broken", said)
    told = json.loads(said)
    if told["sum"] != 64.0**3:
        return Finding("broken", f"{told['version']} multiplies wrongly: a sum of {64**3} came out as {told['sum']}")
    build = f"CUDA {told['cuda']}" if told["cuda"] else "CPU"
    return Finding("ok", f"{told['version']}, {build} build, {told['threads']} threads")


def transformers() -> Finding:
    if missing_modules(["transformers"]):
        return Finding("missing", "not installed")
    code, said = _python("import transformers; print(transformers.__version__)")
    return Finding("broken" if code else "ok", said)


def gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("missing", "no nvidia-smi on the path")
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader"]
    code, said = said_by(query, 20)
    if code:
        return Finding("broken", f"nvidia-smi: {said}")
    code, seen = _python("import torch; print(torch.cuda.device_count(), torch.cuda.is_bf16_supported())")
    if code or seen.startswith("0"):
        return Finding("broken", f"{said}; but torch sees none ({seen})")
    return Finding("ok", f"{said}; torch sees {seen.split()[0]}, bf16 {'yes' if seen.endswith('True') else 'no'}")


def processor() -> Finding:
    """ "missing" where bf16 is emulated."""
    flags = _cpu_flags()
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if name in flags]
    bf16 = bool({"avx512_bf16", "amx_bf16", "bf16"} & set(known))
    told = f"{_cores()} cores, {' '.join(known) or 'no vector extension known'}"
    return Finding("ok", f"{told}; bf16 in hardware") if bf16 else Finding("missing", f"{told}; no bf16 in hardware")


def vllm() -> Finding:
    if missing_modules(["vllm"]):
        return Finding("missing", "not installed")
    flags = _cpu_flags()
    if platform.machine() == "x86_64" and shutil.which("nvidia-smi") is None and "avx512f" not in flags:
        slow = " (this CPU has no avx512: slow)"
    else:
        slow = ""
    code, said = _python("import vllm; import vllm.entrypoints.openai.api_server; print(vllm.__version__)")
    return Finding("broken" if code else "ok", f"{said}{slow}")


def memory() -> Finding:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    told = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    free, total = told["MemAvailable"], told["MemTotal"]
    limit = _cgroup_limit()
    capped = f", this container may use {limit / GIB:.1f}" if limit and limit < total else ""
    return Finding("ok" if free > GIB else "broken", f"{free / GIB:.1f} of {total / GIB:.1f} GiB free{capped}")


def shared_memory() -> Finding:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("missing", "there is none")
    usage = shutil.disk_usage(folder)
    probe = folder / f"agentrl-doctor-{os.getpid()}"
    try:
        probe.write_bytes(b"x")
    finally:
        probe.unlink(missing_ok=True)
    told = f"{usage.free / GIB:.2f} of {usage.total / GIB:.2f} GiB free"
    return Finding("ok" if usage.free >= LEAST_SHM else "broken", told)


def disk() -> Finding:
    usage = shutil.disk_usage(Path())
    told = f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free in {Path.cwd()}"
    return Finding("ok" if usage.free >= LEAST_DISK else "broken", told)


def ports() -> Finding:
    """A server of one connection, on a port that the kernel chooses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            server.settimeout(5)
            server.accept()[0].close()
    return Finding("ok", f"a server on 127.0.0.1:{port} was reached")


def _package(name: str, module: str, feature: str, extra: str) -> Probe:
    def look() -> Finding:
        if missing_modules([module]):
            return Finding("missing", f"{module} is not installed")
        code, said = _python(f"import {module}; print({module}.__version__)")
        return Finding("broken" if code else "ok", f"{module} {said}")

    return Probe(name, look, feature, f'pip install -e ".[{extra}]"')


def _python(program: str) -> tuple[int, str]:
    """In a process of its own: an import that crashes is an answer."""
    try:
        return said_by([sys.executable, "-c", program], 50)
    except subprocess.TimeoutExpired:
        return 124, "no answer within 50 s"


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line.split(":")[1] for line in lines if line.startswith(("flags", "Features"))), "").split())


def _cores() -> int:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _cgroup_limit() -> int | None:
    try:
        said = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return int(said) if said.isdecimal() else None

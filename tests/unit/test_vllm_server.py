"""What the vLLM engine does without vLLM: its command line, its reading of answers, its care for processes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.engines import vllm_warden
from agentrl.engines.vllm_api import (
    ServerOptions,
    ServerSettings,
    VllmApi,
    best_dtype,
    expand_spans,
    parse_completion,
    parse_scores,
    sampling_body,
    server_command,
    server_environment,
)
from agentrl.engines.vllm_process import ProcessFiles, ServerProcess, check_port, last_lines, reap
from agentrl.engines.vllm_server import VllmEngine
from agentrl.errors import ConfigError, InfrastructureFault
from agentrl.ports import free_port
from agentrl.protocols import GenerateRequest
from agentrl.types import Finish, SamplingParams, token_ids


def answer(**changes: Any) -> dict[str, Any]:
    entries = [
        {
            "token_id": 7,
            "logprob": -0.5,
            "rank": 1,
            "top_logprobs": [
                {"token_id": 7, "logprob": -0.5, "rank": 1},
                {"token_id": 3, "logprob": -1.5, "rank": 2},
                {"token_id": 8, "logprob": -2.5, "rank": 3},
            ],
        },
        {
            "token_id": 9,
            "logprob": -4.0,
            "rank": 40,
            "top_logprobs": [
                {"token_id": 9, "logprob": -4.0, "rank": 40},
                {"token_id": 5, "logprob": -0.1, "rank": 1},
                {"token_id": 6, "logprob": -3.0, "rank": 2},
            ],
        },
    ]
    choice = {
        "token_ids": [7, 9],
        "finish_reason": "stop",
        "logprobs": {"content": entries},
        "weight_versions": [{"version": "3", "start": 0, "end": 1}, {"version": "4", "start": 1, "end": 2}],
    }
    return {"choices": [choice | changes], "usage": {"prompt_tokens_details": {"cached_tokens": 128}}}


def test_an_answer_becomes_a_completion() -> None:
    completion = parse_completion(answer(), top_logprobs=2)
    assert completion.tokens.tolist() == [7, 9]
    assert completion.logprobs.tolist() == [-0.5, -4.0]
    assert completion.versions.tolist() == [3, 4]
    assert completion.finish is Finish.STOP
    assert completion.cached_tokens == 128
    assert completion.top_logprobs == ({7: -0.5, 3: -1.5}, {5: -0.1, 6: -3.0})


def test_an_aborted_request_without_tokens_is_empty() -> None:
    completion = parse_completion(
        answer(token_ids=[], logprobs=None, weight_versions=None, finish_reason="abort"), top_logprobs=0
    )
    assert len(completion.tokens) == 0
    assert completion.finish is Finish.ABORT


@pytest.mark.parametrize("bad", [-9999.0, None, float("nan")])
def test_a_token_without_a_logprob_is_a_fault_not_a_number(bad: float | None) -> None:
    damaged = answer()
    damaged["choices"][0]["logprobs"]["content"][1]["logprob"] = bad
    with pytest.raises(InfrastructureFault, match="sampled 2 tokens and gave log-probabilities for 1 of them"):
        parse_completion(damaged)


@pytest.mark.parametrize(
    "damaged", [{}, {"choices": []}, None, [], answer(finish_reason="bored"), answer(token_ids=None)]
)
def test_an_answer_of_another_shape_is_named(damaged: Any) -> None:
    with pytest.raises(InfrastructureFault, match="another version of vLLM"):
        parse_completion(damaged)


@given(st.lists(st.integers(1, 9), max_size=6))
def test_spans_that_cover_all_tokens_give_each_its_version(lengths: list[int]) -> None:
    ends = np.cumsum([0, *lengths]).tolist()
    spans = [(version, ends[version], ends[version + 1]) for version in range(len(lengths))]
    expected = [version for version, length in enumerate(lengths) for _ in range(length)]
    assert expand_spans(spans, sum(lengths)).tolist() == expected


@pytest.mark.parametrize("spans", [[], [(1, 0, 2)], [(1, 1, 3)], [(1, 0, 2), (2, 1, 3)], [(1, 0, 4)]])
def test_spans_with_a_gap_or_an_overlap_are_a_fault(spans: list[tuple[int, int, int]]) -> None:
    with pytest.raises(InfrastructureFault, match="do not cover the 3 sampled tokens"):
        expand_spans(spans, 3)


def test_scores_are_looked_up_by_token() -> None:
    # vLLM lists the likeliest beside the token itself, in any order.
    entries = [None, {"5": {"logprob": -0.1}, "2": {"logprob": -3.0}}, {"9": {"logprob": -0.7}}]
    assert parse_scores({"prompt_logprobs": entries}, token_ids([1, 2, 9])).tolist() == pytest.approx([0, -3.0, -0.7])
    with pytest.raises(InfrastructureFault, match="prompt log-probabilities"):
        parse_scores({"prompt_logprobs": entries[:2]}, token_ids([1, 2, 9]))
    with pytest.raises(InfrastructureFault, match="1 of 2 tokens as NaN"):
        parse_scores({"prompt_logprobs": [None, {"2": {"logprob": None}}]}, token_ids([1, 2]))


def test_a_request_asks_for_nothing_that_biases_the_ratio() -> None:
    body = sampling_body(SamplingParams(5, temperature=0.7, seed=2**63 + 1, stop_token_ids=(2,), top_logprobs=3))
    assert body == {
        "max_tokens": 5,
        "temperature": 0.7,
        "seed": 1,
        "stop_token_ids": [2],
        "ignore_eos": True,
        "logprobs": 4,
        "detokenize": False,
    }


def test_the_command_line_says_what_vllm_would_get_wrong_by_default() -> None:
    command = server_command(
        ServerOptions(Path("model"), dtype="float32", settings=ServerSettings(kv_cache_bytes=64 << 20)), 81
    )
    assert command[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    pairs = dict(pairwise(command))
    assert pairs["--host"] == "127.0.0.1"
    assert pairs["--port"] == "81"
    assert pairs["--logprobs-mode"] == "processed_logprobs"
    assert pairs["--generation-config"] == "vllm"
    assert pairs["--kv-cache-memory-bytes"] == str(64 << 20)
    assert {"--enable-scale-out", "--enforce-eager"} <= set(command)
    large = ServerSettings(kv_cache_bytes=None, gpu_memory=0.3)
    on_gpu = server_command(ServerOptions(Path("model"), device="cuda", settings=large), 81)
    assert dict(pairwise(on_gpu))["--gpu-memory-utilization"] == "0.3"
    assert not {"--enforce-eager", "--kv-cache-memory-bytes"} & set(on_gpu)


def test_the_environment_keeps_the_server_quiet_offline_and_to_its_memory() -> None:
    inherited = {"PATH": "/bin", "VLLM_CPU_KVCACHE_SPACE": "40", "PYTHONPATH": "/mine"}
    environment = server_environment(ServerOptions(Path("model"), settings=ServerSettings(threads=2)), inherited)
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment
    assert environment["PATH"] == "/bin"
    assert environment["PYTHONPATH"].endswith(f"{os.pathsep}/mine")
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == "1"
    # One process for engine and worker, on a CPU only.
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in server_environment(ServerOptions(Path("model"), device="cuda"), {})
    assert "OMP_NUM_THREADS" not in server_environment(ServerOptions(Path("model"), device="cuda"), {})


def test_a_cpu_without_bfloat16_gets_float32(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    for flags, expected in (("avx avx2 fma", "float32"), ("avx512f avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16")):
        cpuinfo.write_text(f"flags : {flags}\n")
        assert best_dtype("cpu", cpuinfo) == expected
    assert best_dtype("cpu", tmp_path / "absent") == "float32"
    assert best_dtype("cuda", tmp_path / "absent") == "bfloat16"


def serve(folder: Path, code: str) -> ServerProcess:
    files = ProcessFiles(folder / "server.log", folder / "server.label")
    return ServerProcess("the test server", [sys.executable, "-c", code], dict(os.environ), files)


def wait_for(fact: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


async def test_an_obituary_tells_exit_code_log_and_last_lines(tmp_path: Path) -> None:
    process = serve(tmp_path, "print('loading'); print('ValueError: no such dtype'); raise SystemExit(3)")
    process.start()
    await asyncio.to_thread(wait_for, lambda: process.exit_code is not None)
    text = process.obituary()
    assert text.startswith(f"the test server ended with exit code 3. Its log is {tmp_path / 'server.log'}")
    assert "ValueError: no such dtype" in text
    assert not (tmp_path / "server.label").exists()


def test_the_last_lines_are_those_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(["start", *(f" - leaked type {i}" for i in range(30)), "nanobind: leaked 4 instances!"]))
    assert last_lines(log) == "  start"
    log.write_text("one\nERROR two\nthree\n")
    assert last_lines(log) == "  ERROR two"
    log.write_text("(a) ERROR File x\n(a) RuntimeError: no room\n(b) ERROR File y\n(b) RuntimeError: no room\nbye\n")
    assert last_lines(log) == "  (b) RuntimeError: no room"
    assert "cannot be read" in last_lines(tmp_path / "absent")


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("up", flush=True)
time.sleep(60)
"""


async def test_stop_ends_the_whole_group(tmp_path: Path) -> None:
    process = serve(tmp_path, STUBBORN.replace("signal.signal(signal.SIGTERM, signal.SIG_IGN)", ""))
    process.start()
    await asyncio.to_thread(wait_for, lambda: process.group and len(vllm_warden.members(process.group)) == 2)
    group = process.group
    assert group is not None
    await process.stop()
    assert not vllm_warden.group_alive(group)
    assert process.exit_code == 128 + signal.SIGTERM
    await process.stop()


def test_a_server_whose_owner_and_warden_were_killed_is_reaped_by_its_label(tmp_path: Path) -> None:
    label = tmp_path / "label"
    owner = subprocess.Popen(
        [sys.executable, "-I", vllm_warden.__file__, str(os.getpid()), str(label), "1", sys.executable, "-c", STUBBORN],
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: label.exists() and len(vllm_warden.members(vllm_warden.labelled(label))) == 2)
    group = vllm_warden.labelled(label)
    owner.kill()
    owner.wait()
    # It is told to end with its warden, and does not listen.
    time.sleep(0.2)
    assert vllm_warden.group_alive(group)
    assert reap(label, grace=0.1)
    assert not vllm_warden.group_alive(group)
    assert not label.exists()
    assert not reap(label)


def test_a_label_of_another_process_ends_nobody(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        label = tmp_path / "label"
        label.write_text(json.dumps({"group": bystander.pid, "started": "1", "boot": vllm_warden.boot()}))
        assert not reap(label)
        assert bystander.poll() is None
        label.write_text("torn")
        assert not reap(label)
        started = vllm_warden.started(bystander.pid)
        label.write_text(json.dumps({"group": bystander.pid, "started": started, "boot": vllm_warden.boot()}))
        assert reap(label)
        bystander.wait()
    finally:
        bystander.kill()
        bystander.wait()


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InfrastructureFault, match=f"port {port} cannot be used"):
            check_port(port)
    check_port(free_port())


async def test_an_engine_that_was_not_started_says_so(tmp_path: Path) -> None:
    engine = VllmEngine(tmp_path, log_folder=tmp_path)
    with pytest.raises(InfrastructureFault, match="was not started"):
        await engine.generate(GenerateRequest(token_ids([1]), SamplingParams(1)))
    health = await engine.health()
    assert not health.ok
    await engine.close()


async def test_a_closed_api_sends_nothing() -> None:
    api = VllmApi(free_port(), 1.0)
    await api.close()
    with pytest.raises(InfrastructureFault, match="has ended"):
        await api.pause()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
async def test_a_folder_without_a_model_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no model"):
        await VllmEngine(tmp_path / "absent", log_folder=tmp_path).start()

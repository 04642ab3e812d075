"""Recorded episodes, taken up again: scored, played, rendered or continued; what is recorded stays as it is."""

from agentrl.replay.case import check_case

__all__ = ["check_case"]

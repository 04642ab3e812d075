"""Where a model's code runs: one protocol, several backends, each with limits that hold.

What is here is imported without any backend; `host.create("sandboxes", name)` makes one.
"""

from agentrl.sandbox.protocol import Abilities, Limits, Ran, Sandbox, Session

__all__ = ["Abilities", "Limits", "Ran", "Sandbox", "Session"]

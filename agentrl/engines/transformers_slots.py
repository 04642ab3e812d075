"""Which sequence lies in which cache slot, and how much of a new prompt is there already.

Host memory only: the ids behind every cached key are kept here, so a prefix is reused only where its ids are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentrl.types import TokenIds

# A request waits for a neighbour that is computing this many tokens more of its prompt than are cached: its whole group
# waits with it, for one pass of all others.
WORTH_WAITING = 4


@dataclass(frozen=True, slots=True)
class Claim:
    """A slot given to a request. The first `cached` tokens are there, once copied from slot `source`."""

    slot: int
    cached: int
    source: int
    "Equal to `slot` where nothing is to be copied."


class Slots:
    """Sequences by slot: `ids[s, :known[s]]` are its tokens, and the first `filled[s]` have keys and values.

    A slot is busy while a request runs in it, otherwise kept for its owner's next step, otherwise free. The content
    of a free slot still serves as a prefix for others until it is overwritten.
    """

    def __init__(self, count: int, length: int) -> None:
        self.ids: TokenIds = np.zeros((count, length), np.int32)
        self.filled = np.zeros(count, np.int64)
        self.known = np.zeros(count, np.int64)
        self._busy = np.zeros(count, np.bool_)
        self._owned = np.zeros(count, np.bool_)
        self._owner = [""] * count
        self._used = np.zeros(count, np.int64)
        self._clock = 0
        self._of_session: dict[str, set[int]] = {}
        self._top = 0
        "One above the highest slot ever used."

    def claim(self, prompt: TokenIds, session: str) -> Claim | None:
        """A slot for `prompt`, or None where it should be asked again after the next forward pass."""
        # The last token is always computed: the logits after it are what the request is for.
        last = len(prompt) - 1
        own = self._own_idle(session)
        if own is not None:
            shared = _common_prefix(self.ids[own], prompt, min(int(self.filled[own]), last))
            if shared and shared == min(self.filled[own], last):
                return self._take(own, prompt, session, Claim(own, shared, own))
        source, cached, coming = self._best_prefix(prompt, last)
        if coming >= cached + WORTH_WAITING:
            return None
        slot = own if own is not None else self._room(source)
        if slot is None:
            return None
        return self._take(slot, prompt, session, Claim(slot, cached, source if cached else slot))

    def claim_blank(self, tokens: TokenIds) -> int | None:
        """A slot for `tokens` in which nothing is reused; None where every slot is busy."""
        slot = self._room(-1)
        if slot is not None:
            self._take(slot, tokens, "", Claim(slot, 0, slot))
        return slot

    def release(self, slot: int) -> None:
        """The request in `slot` ended; its sequence is kept for its owner, if it has one."""
        self._busy[slot] = False
        self.known[slot] = self.filled[slot]

    def forget(self, session: str) -> None:
        for slot in self._of_session.pop(session, ()):
            self._owned[slot] = False
            self._owner[slot] = ""

    def drop(self) -> None:
        """No cached entry is valid any more. Busy slots keep their tokens and are computed anew."""
        self.filled[:] = 0
        self.known[~self._busy] = 0
        for slot in np.flatnonzero(self._owned & ~self._busy):
            self._disown(int(slot))

    def trim(self, budget: int) -> None:
        """Drop the longest unused idle sequences until those that are left have `budget` tokens or fewer."""
        idle = np.flatnonzero(self._owned & ~self._busy)
        excess = int(self.filled[idle].sum()) - budget
        if excess <= 0:
            return
        for slot in idle[np.argsort(self._used[idle])]:
            excess -= int(self.filled[slot])
            self.filled[slot] = self.known[slot] = 0
            self._disown(int(slot))
            if excess <= 0:
                return

    def idle_sessions(self) -> set[str]:
        """Sessions that are kept and have no request running."""
        return {self._owner[slot] for slot in np.flatnonzero(self._owned & ~self._busy)}

    @property
    def top(self) -> int:
        return self._top

    def _own_idle(self, session: str) -> int | None:
        idle = [slot for slot in self._of_session.get(session, ()) if not self._busy[slot]]
        return max(idle, key=lambda slot: self._used[slot]) if idle else None

    def _best_prefix(self, prompt: TokenIds, last: int) -> tuple[int, int, int]:
        """The slot with the longest cached prefix, that length, and the longest that will be cached soon."""
        if not self._top or last <= 0:
            return -1, 0, 0
        different = self.ids[: self._top, :last] != prompt[:last]
        shared = np.where(different.any(1), different.argmax(1), last)
        cached = np.minimum(shared, self.filled[: self._top])
        source = int(cached.argmax())
        return source, int(cached[source]), int(np.minimum(shared, self.known[: self._top]).max())

    def _room(self, source: int) -> int | None:
        if source >= 0 and not self._busy[source] and not self._owned[source]:
            return source
        available = ~self._busy
        if not available.any():
            return None
        free = np.flatnonzero(available & ~self._owned)
        # The lowest: requests that lie side by side are read without a copy.
        if free.size:
            return int(free[0])
        idle = np.flatnonzero(available)
        return int(idle[self._used[idle].argmin()])

    def _take(self, slot: int, prompt: TokenIds, session: str, claim: Claim) -> Claim:
        if self._owner[slot] != session:
            self._disown(slot)
            if session:
                self._owner[slot] = session
                self._owned[slot] = True
                self._of_session.setdefault(session, set()).add(slot)
        self._clock += 1
        self._used[slot] = self._clock
        self._busy[slot] = True
        self._top = max(self._top, slot + 1)
        self.ids[slot, : len(prompt)] = prompt
        self.filled[slot] = claim.cached
        self.known[slot] = len(prompt)
        return claim

    def _disown(self, slot: int) -> None:
        owner, self._owner[slot] = self._owner[slot], ""
        self._owned[slot] = False
        if owner:
            slots = self._of_session[owner]
            slots.discard(slot)
            if not slots:
                del self._of_session[owner]


def _common_prefix(cached: npt.NDArray[np.int32], prompt: TokenIds, limit: int) -> int:
    different = cached[:limit] != prompt[:limit]
    first = int(different.argmax()) if limit else 0
    return first if limit and different[first] else limit

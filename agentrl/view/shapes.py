"""What the page is told, as JSON: one dataclass for each answer of the server, and the same in the static file.

Everything here is data, and all of its text is untrusted: the page sets it as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentrl.store.rows import EpisodeRow
from agentrl.types import JSON


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the header: `success | 70.3 % [58.2, 80.1] | 64 tasks, greedy`."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    "good, bad or empty."


@dataclass(frozen=True, slots=True)
class Curve:
    """One number by batch. `low` and `high` are empty where it has no interval."""

    name: str
    "As in `metrics.jsonl`."
    label: str
    unit: str
    "share, nats, seconds, tokens or empty."
    x: Sequence[int]
    "Batch, counted from 1: a point opens the groups of that batch. 0 is before training."
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of the resolved recipe."""

    key: str
    value: JSON
    default: JSON = None
    changed: bool = False
    "It differs from the default."
    baseline: JSON = None
    "The other run's, where the page shows two."


@dataclass(frozen=True, slots=True)
class Overview:
    """`GET api/overview`: the first screen."""

    kind: str
    "run or evaluation."
    title: str
    folder: str
    verdict: str
    "One sentence that a person decides by: what rose from what to what, with its interval, or that nothing is known."
    facts: Sequence[Fact]
    command: str
    "Reproduces it."
    settings: Sequence[Setting]
    curves: Sequence[Curve]
    health: Sequence[str]
    "What is wrong, in plain words, and what to try."
    outcomes: Mapping[str, int]
    "Episodes by outcome: the failure map."
    episodes: int
    live: bool
    "It is still being written."
    revision: int
    "Grows with everything that is written; the page asks again when `api/revision` says another number."
    runs: Sequence[str] = ()
    "Names of the folders that the grid compares, this one first."


@dataclass(frozen=True, slots=True)
class EpisodePage:
    """`GET api/episodes?outcome=&task=&batch=&group=&source=&search=&inside=1&sort=&offset=&limit=`"""

    total: int
    "Of all that fit the filter."
    offset: int
    lines: Sequence[EpisodeRow]
    cut: bool = False
    "The search inside the episodes stopped at its bound: there may be more."


@dataclass(frozen=True, slots=True)
class Token:
    """A sampled token, as the token lens shows it."""

    text: str
    id: int
    logprob: float
    "Of the policy that sampled it, in nats."
    version: int
    trained: bool = False
    "It was in a batch with a coefficient that is not 0: its gradient moved the weights."
    advantage: float | None = None
    mismatch: float | None = None
    "Learner's minus sampler's log-probability, in nats."


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: JSON
    result: str
    error: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A message of the context."""

    role: str
    content: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Seconds:
    """Who took the time of a step."""

    waiting: float
    model: float
    environment: float
    reward: float


@dataclass(frozen=True, slots=True)
class StepView:
    id: str
    index: int
    shown: Sequence[Said]
    "What was added to the context before the decision; the first step has system and task."
    prompt: str
    "The tokens that this step added before its answer, as text."
    prompt_tokens: int
    tokens: Sequence[Token]
    "Empty where a chat API answered."
    text: str
    reasoning: str
    calls: Sequence[Call]
    error: str
    "What the model was told it did wrong."
    reward: float
    scores: Mapping[str, float]
    "Named terms of the reward."
    seconds: Seconds
    started: float
    images: Sequence[str]
    "Addresses of screenshots, `api/image/HASH`."
    marks: Sequence[tuple[float, float]]
    "Where the action clicked, as shares of the screenshot's width and height."
    tree: str
    "Accessibility tree: the message called `accessibility_tree` of the observation, which `shown` leaves out."
    anchor: str | None
    shared: bool
    "Taken over from the trajectory that this one was forked from."
    source: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A member of the episode's group: side by side, and as a tree of branches."""

    id: str
    outcome: str
    reward: float
    steps: int
    forked_from: str | None
    "Id of the last step that it shares with the trajectory it left."
    step_ids: Sequence[str]
    "Of all its steps, so that shared ones can be drawn once."
    step_advantages: Sequence[float | None]
    "Mean over the step's tokens, where it was trained on."


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """`GET api/episode/ID`"""

    line: EpisodeRow
    task: JSON
    steps: Sequence[StepView]
    final: Sequence[Said]
    "What was shown after the last action."
    group: Sequence[Neighbour]
    given: str
    "What the policy was told and did not train with."
    previous: str | None
    "Id of the episode before it in the ledger's order."
    next: str | None


@dataclass(frozen=True, slots=True)
class GridRow:
    """A task of the grid: for each run the share of its attempts that succeeded, None where it was not tried."""

    task: str
    shares: Sequence[float | None]
    episodes: Sequence[Sequence[str]]
    "Ids of the attempts, by run."
    flipped: bool
    "The runs do not agree on it: it comes first."


@dataclass(frozen=True, slots=True)
class Grid:
    """`GET api/grid`: tasks by runs, flips first."""

    runs: Sequence[str]
    "Names of the columns: folders, or, where one run is shown, its evaluations on held-out tasks."
    rows: Sequence[GridRow]
    left_out: int = 0
    "Tasks behind the last row."


@dataclass(frozen=True, slots=True)
class Revision:
    """`GET api/revision`"""

    revision: int
    live: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """The answer to what cannot be answered, in words."""

    error: str


@dataclass(frozen=True, slots=True)
class Book:
    """What a static file holds in place of a server: the overview, the grid, and the episodes chosen for it."""

    overview: Overview
    grid: Grid
    lines: Sequence[EpisodeRow]
    episodes: Mapping[str, EpisodeView]
    "By what stands behind `api/episode/` in an address: `ID`, or `ID?run=K` for the K-th folder."
    left_out: int = 0
    "Episodes that are listed and cannot be opened, because the file would become too large."
    unlisted: int = 0
    "Episodes that are not even listed, for the same reason."
    images: Mapping[str, str] = field(default_factory=dict)
    "Data addresses by the address that a step names."

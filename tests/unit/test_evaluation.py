"""An evaluation plays everything once, keeps faults apart, goes on where it stopped, and says when it may not."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentrl import Env, Suite, Task, hookimpl
from agentrl.cli.human import PATIENCE, HumanPolicy
from agentrl.doctor.runs import look_at
from agentrl.errors import ConfigError, EnvironmentFault, InfrastructureFault, StoreError
from agentrl.evaluation.folder import EvaluationFolder
from agentrl.evaluation.parquet import save_parquet
from agentrl.evaluation.result import RESULTS, EvaluationResult, Prices, load_result
from agentrl.evaluation.runner import Plan, SuiteRun
from agentrl.evaluation.table import table
from agentrl.plugins import Host, load_host
from agentrl.rollout.decisions import Decision, Seat
from agentrl.runs.evaluation import EvalSettings, Sitting, evaluate, introduction, prepare
from agentrl.runs.pulse import read_pulse
from agentrl.store.reader import FolderReader
from agentrl.types import Action, Finish, token_ids

BROKEN: set[str] = set()
"Tasks whose world breaks at the reset."


class Bell(Env):
    """Say ding: the first word that is said ends it."""

    said = ""

    def tasks(self, split: str):
        return (Task(f"bell-{i}", "bell", i) for i in range(400))

    def reset(self, task: Task) -> str:
        self.said = ""
        if task.id in BROKEN:
            raise OSError("the bell is cracked")
        return "say ding"

    def answered(self, text: str) -> None:
        self.said = text or "nothing"

    def done(self) -> bool:
        return bool(self.said)

    def reward(self) -> float:
        return float(self.said == "ding")

    def oracle(self, task: Task):
        yield Action("ding")


class Plugin:
    @hookimpl
    def agentrl_environments(self):
        return {"bell": Bell}

    @hookimpl
    def agentrl_suites(self):
        def suite(*, tasks: int = 12, edition: int = 1) -> Suite:
            return Suite("bell", str(edition), Bell, count=tasks, known_bad={"bell-3": "it is silent"})

        return {"bell": suite}


@dataclass
class Ringer:
    """Says ding where the sampler's seed is even, dong where it is odd; implements policy, player and decider."""

    fails: dict[str, int] = field(default_factory=dict)
    "How often the engine breaks, by task."
    played: list[str] = field(default_factory=list)
    opened: int = 0
    identity: dict[str, Any] = field(default_factory=lambda: {"kind": "ringer"})
    max_tokens: int | None = None
    max_context: int = 1000

    async def named(self) -> Ringer:
        return self

    async def open(self, stack: AsyncExitStack, folder: Path) -> Ringer:
        self.opened += 1
        return self

    def sit(self, seat: Seat) -> Answer:
        return Answer(self, seat)

    async def forget(self, session: str) -> None: ...


@dataclass
class Answer:
    ringer: Ringer
    seat: Seat

    def prepare(self, steps, observation, tools) -> bool:
        return True

    async def decide(self) -> Decision:
        ringer, name = self.ringer, f"{self.seat.task}/{self.seat.member}"
        if ringer.fails.get(self.seat.task, 0) > 0:
            ringer.fails[self.seat.task] -= 1
            raise InfrastructureFault("the engine is gone")
        ringer.played.append(name)
        await asyncio.sleep(0)
        none, even = token_ids([]), self.seat.seed(0) % 2 == 0
        counted = {"prompt_tokens": 100.0, "completion_tokens": 10.0}
        return Decision(
            Action("ding" if even else "dong"), None, none, none, np.zeros(0, np.float32), none, Finish.STOP, counted
        )


@pytest.fixture(scope="module")
def host() -> Host:
    made = load_host()
    made.register(Plugin(), "bells")
    return made


@pytest.fixture(autouse=True)
def whole_bells():
    yield
    BROKEN.clear()


def sit(host: Host, out: Path, ringer: Ringer | None = None, *, suite: str = "bell", **more: Any) -> Sitting:
    policy = more.pop("policy", "ringer")
    settings = EvalSettings(suite, policy, out=out, concurrency=more.pop("concurrency", 4), **more)
    return prepare(settings, host, {"ringer": ringer or Ringer()})  # type: ignore[dict-item]


async def measure(host: Host, out: Path, ringer: Ringer | None = None, **more: Any) -> EvaluationResult:
    return await evaluate(sit(host, out, ringer, **more), host, lambda run: None)


@pytest.mark.parametrize("suite", ["keydoor", "tool-desk"])
async def test_the_oracle_wins_all_nobody_wins_nothing_and_chance_little(host: Host, tmp_path: Path, suite) -> None:
    scores = {}
    for policy in ("oracle", "null", "random"):
        result = await measure(host, tmp_path / policy, suite=suite, policy=policy, limit=12, concurrency=12)
        interval = result.interval()
        assert interval is not None and interval.tasks == 12 and result.faults() == 0
        scores[policy] = interval.value
        assert (result.null is None) == (policy == "null")
        assert load_result(tmp_path / policy) == result
    assert scores["oracle"] == 1.0 and scores["null"] == 0.0 and scores["random"] < 0.5
    beside = load_result(tmp_path / "oracle").null
    assert beside is not None and beside.score.value == 0.0 and beside.score.tasks == 12


async def test_every_attempt_is_kept_as_an_episode_of_its_tasks_group(host: Host, tmp_path: Path) -> None:
    result = await measure(host, tmp_path / "e", attempts=3, limit=2)
    with FolderReader(tmp_path / "e") as reader:
        rows = list(reader.rows())
        assert sorted(row.id for row in rows) == sorted(f"bell-{t}-{n}" for t in range(2) for n in range(3))
        assert sorted(attempt.episode for attempt in result.attempts) == sorted(row.id for row in rows)
        assert [t.id for t in reader.group("bell-1").trajectories] == ["bell-1-0", "bell-1-1", "bell-1-2"]
    assert [(a.task, a.number) for a in result.attempts] == [(f"bell-{t}", n) for t in range(2) for n in range(3)]
    assert result.manifest.known_bad == {"bell-3": "it is silent"} and result.manifest.tasks == 11


async def test_while_it_is_played_it_says_what_its_episodes_wait_for(host: Host, tmp_path: Path) -> None:
    """Each answer is kept back until the pulse tells of both episodes."""
    out, told = tmp_path / "e", []

    class Patient(Answer):
        async def decide(self) -> Decision:
            while (pulse := read_pulse(out)) is None or pulse.episodes < 2:  # noqa: ASYNC110  (a file says it)
                await asyncio.sleep(0.01)
            told.append((look_at(out).state, pulse.doing, len(pulse.longest)))
            return await super().decide()

    class Kept(Ringer):
        def sit(self, seat: Seat) -> Answer:
            return Patient(self, seat)

    async with asyncio.timeout(30):
        await measure(host, out, Kept(), limit=2)
    assert told == [("running", "playing", 2)] * 2
    after = look_at(out)
    assert (after.state, after.pulse, sorted(path.name for path in out.glob("*.partial"))) == ("complete", None, [])


async def test_the_same_command_plays_nothing_again_and_more_plays_the_rest(host: Host, tmp_path: Path) -> None:
    ringer = Ringer()
    first = await measure(host, tmp_path / "e", ringer, limit=4)
    assert len(ringer.played) == 4 and ringer.opened == 1
    again = await measure(host, tmp_path / "e", ringer, limit=4)
    assert len(ringer.played) == 4 and ringer.opened == 1 and again == first
    more = await measure(host, tmp_path / "e", ringer, attempts=2)
    assert len(ringer.played) == 22 == len(set(ringer.played)) and len(more.attempts) == 22


async def test_one_that_was_stopped_and_continued_says_what_an_undisturbed_one_says(host: Host, tmp_path: Path) -> None:
    whole = await measure(host, tmp_path / "whole", attempts=2)
    sitting, ended = sit(host, tmp_path / "cut", attempts=2, concurrency=3), 0

    def stop_after_five(run: SuiteRun) -> None:
        nonlocal ended
        ended += 1
        if ended == 5:
            work.cancel()

    work = asyncio.ensure_future(evaluate(sitting, host, stop_after_five))
    with pytest.raises(asyncio.CancelledError):
        await work
    kept = load_result(tmp_path / "cut")
    assert kept.stopped == "it was interrupted" and 5 <= len(kept.attempts) < 22
    rest = Ringer()
    result = await measure(host, tmp_path / "cut", rest, attempts=2)
    assert len(rest.played) == 22 - len(kept.attempts)
    assert result.digest() == whole.digest() and result.summary() == whole.summary() and not result.stopped


async def test_a_torn_result_is_made_anew_from_what_was_played(host: Host, tmp_path: Path) -> None:
    result = await measure(host, tmp_path / "e")
    path = tmp_path / "e" / RESULTS
    path.write_text(path.read_text()[:200])
    with pytest.raises(StoreError, match="Run the command of the evaluation again"):
        load_result(tmp_path / "e")
    ringer = Ringer()
    assert await measure(host, tmp_path / "e", ringer) == result and ringer.played == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"temperature": 1.0}, r"temperature was 0\.0 and is 1\.0"),
        ({"max_tokens": 9}, "max-tokens was 256 and is 9"),
        ({"policy": "null"}, "policy kind was 'ringer' and is 'null'"),
        ({"words": ("edition=2",)}, "suite hash was .*; suite version was '1' and is '2'"),
        ({"suite": "keydoor"}, "suite was 'bell' and is 'keydoor'"),
    ],
)
async def test_another_evaluation_in_the_folder_is_refused(host: Host, tmp_path: Path, change, words) -> None:
    result = await measure(host, tmp_path / "e", limit=2)
    with pytest.raises(ConfigError, match=f"holds another evaluation: .*{words}.*Choose another --out"):
        await measure(host, tmp_path / "e", limit=2, **change)
    assert load_result(tmp_path / "e") == result


async def test_two_at_once_and_a_folder_of_someone_else_are_refused(host: Host, tmp_path: Path) -> None:
    sitting = sit(host, tmp_path / "e")
    with (
        EvaluationFolder(sitting.folder, sitting.suite, sitting.manifest),
        pytest.raises(StoreError, match="is in use by another"),
    ):
        await measure(host, tmp_path / "e")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("do not touch")
    with pytest.raises(ConfigError, match="is not empty and is no evaluation"):
        await measure(host, tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["thesis.txt"]


async def test_faults_are_apart_and_the_same_command_tries_them_again(host: Host, tmp_path: Path) -> None:
    BROKEN.add("bell-5")
    # Three tries an episode: bell-1 gets well at the third, bell-2 not.
    ringer = Ringer(fails={"bell-1": 2, "bell-2": 3})
    result = await measure(host, tmp_path / "e", ringer)
    assert result.faults() == 2 and len(result.scores()) == 9
    assert result.outcomes()["environment"] == 1 and result.outcomes()["infrastructure"] == 1
    assert "2 of 11 attempts, not scored" in "\n".join(table(result))
    BROKEN.clear()
    again = Ringer()
    healed = await measure(host, tmp_path / "e", again)
    assert sorted(again.played) == ["bell-2/0", "bell-5/0"] and healed.faults() == 0
    assert healed.digest() == (await measure(host, tmp_path / "f")).digest()


async def test_an_engine_that_is_gone_ends_the_evaluation_and_loses_nothing(host: Host, tmp_path: Path) -> None:
    gone = Ringer(fails={f"bell-{i}": 10**6 for i in range(20, 400)})
    with pytest.raises(
        InfrastructureFault, match=r"episodes in a row ended in a fault; the last one: .*the engine is gone"
    ):
        sitting = sit(host, tmp_path / "e", gone, words=("tasks=400",), concurrency=32)
        # No waiting between tries.
        await evaluate(replace(sitting, plan=replace(sitting.plan, retries=0)), host, lambda run: None)
    kept = load_result(tmp_path / "e")
    assert kept.stopped == "it was interrupted" and len(kept.attempts) < 400
    assert all(attempt.task in {f"bell-{i}" for i in range(20)} for attempt in kept.attempts if attempt.scored)


async def test_it_stops_when_the_interval_is_narrow_enough_at_a_place_that_chance_does_not_move(
    host: Host, tmp_path: Path
) -> None:
    asked = {"words": ("tasks=200",), "until_ci": 0.11, "temperature": 1.0}
    first = await measure(host, tmp_path / "a", concurrency=1, **asked)
    second = await measure(host, tmp_path / "b", concurrency=64, **asked)
    # A share of one half needs about (0.98 / 0.11)^2 = 79 tasks: one block of 64 is too few, two suffice.
    assert len(first.attempts) == 128 and first.digest() == second.digest()
    interval = first.interval()
    assert interval is not None and (interval.high - interval.low) / 2 <= 0.11
    assert "as narrow as asked for" in first.stopped
    wide = await measure(host, tmp_path / "c", until_ci=0.01)
    assert len(wide.attempts) == 11 and "everything was played and the interval is" in wide.stopped


async def test_cost_is_counted_and_bounded(host: Host, tmp_path: Path) -> None:
    # An episode costs 100 / 1e6 * 1e4 + 10 / 1e6 * 1e5 = 2.
    prices = Prices(prompt=1e4, completion=1e5)
    with pytest.raises(ConfigError, match="needs prices"):
        sit(host, tmp_path / "e", max_cost=5.0)
    short = await measure(host, tmp_path / "e", max_cost=5.0, prices=prices, concurrency=1)
    assert len(short.attempts) == 3 and short.cost() == pytest.approx(6.0) and "max-cost" in short.stopped
    more = await measure(host, tmp_path / "e", max_cost=9.0, prices=prices, concurrency=1)
    assert len(more.attempts) == 5 and more.manifest.prices == prices
    assert any(line.startswith("cost     10, 2 an episode") for line in table(more))


async def test_time_is_bounded_between_episodes(host: Host, tmp_path: Path) -> None:
    none = await measure(host, tmp_path / "e", max_seconds=0.0)
    assert none.attempts == () and "max-seconds" in none.stopped and none.interval() is None
    assert len((await measure(host, tmp_path / "e", max_seconds=60.0)).attempts) == 11


async def test_what_is_printed_says_who_played_what_and_how_it_went(host: Host, tmp_path: Path) -> None:
    sitting = sit(host, tmp_path / "e", attempts=4, temperature=1.0, limit=8)
    assert introduction(sitting) == [
        "suite    bell 1 · bell · 8 of 11 tasks x 4",
        "policy   ringer (ringer) · sampled T=1 · at most 256 tokens an answer",
    ]
    lines = table(await evaluate(sitting, host, lambda run: None))
    found = dict(line.split(maxsplit=1) for line in lines)
    assert found["score"].endswith("of 8 tasks (95% interval)") and found["null"].startswith("0.0% [")
    assert found["repeats"].startswith("pass@4 ") and found["failures"].startswith("wrong answer ")
    assert "bell-3 (it is silent)" in "\n".join(lines)


async def test_a_stranger_reads_the_file(host: Host, tmp_path: Path) -> None:
    result = await measure(host, tmp_path / "e", attempts=2)
    told = json.loads((tmp_path / "e" / RESULTS).read_text())
    assert told["format"] == 1 and told["manifest"]["suite"] == "bell" and told["manifest"]["hash"]
    assert told["manifest"]["distributions"]["agentrl-framework"]
    assert told["summary"]["score"]["tasks"] == 11 and told["summary"]["digest"] == result.digest()
    assert set(told["summary"]["pass_at"]) == {"1", "2"}
    assert told["null"]["score"]["value"] == 0.0
    assert len(told["attempts"]) == 22


async def test_parquet_has_a_row_an_attempt(host: Host, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    result = await measure(host, tmp_path / "e", prices=Prices(1.0, 1.0))
    save_parquet(result, tmp_path / "e")
    rows = parquet.read_table(tmp_path / "e" / "results.parquet").to_pylist()
    assert [(row["task"], row["success"]) for row in rows] == [(a.task, a.success) for a in result.attempts]
    assert {row["suite_hash"] for row in rows} == {result.manifest.hash} and rows[0]["cost"] > 0


async def test_an_oracle_that_is_not_there_and_one_that_raises_are_told(host: Host, tmp_path: Path) -> None:
    class Mute(Bell):
        oracle = Env.oracle

    class Lost(Bell):
        def oracle(self, task: Task):
            raise EnvironmentFault("no way is known")

    for world, words in ((Mute, "has no oracle"), (Lost, "no way is known")):
        sitting = replace(sit(host, tmp_path / "e", policy="oracle"), folder=tmp_path / world.__name__)
        suite = replace(sitting.suite, environment=world)
        sitting = replace(sitting, suite=suite, plan=Plan(suite.tasks[:1], retries=0))
        if world is Mute:
            with pytest.raises(ConfigError, match=words):
                await evaluate(sitting, host, lambda run: None)
        else:
            result = await evaluate(sitting, host, lambda run: None)
            assert result.faults() == 1 and words in result.attempts[0].error


async def test_a_person_plays_one_episode_after_another_and_may_leave(host: Host, tmp_path: Path) -> None:
    written = io.StringIO()

    def person(*lines: str) -> EvalSettings:
        people["human"] = HumanPolicy(io.StringIO("".join(f"{line}\n" for line in lines)), written)
        return EvalSettings("bell", "human", out=tmp_path / "e", limit=3, concurrency=1, episode_deadline=PATIENCE)

    people: dict[str, Any] = {}
    with pytest.raises(ConfigError, match=r"you left at task .*the same command goes on"):
        await evaluate(prepare(person("ding", "dong", "quit"), host, people), host, lambda run: None)
    assert "say ding" in written.getvalue() and len(load_result(tmp_path / "e").scores()) == 2
    result = await evaluate(prepare(person("ding"), host, people), host, lambda run: None)
    assert sorted(attempt.success for attempt in result.attempts) == [False, True, True]


def test_the_folder_is_called_after_suite_and_policy(host: Host, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run-0.5").mkdir()
    for policy, name in (("run-0.5", "bell-run-0.5"), ("http://localhost:80/v1#tiny", "bell-localhost-80-v1-tiny")):
        sitting = prepare(EvalSettings("bell", policy), host, {policy: Ringer()})  # type: ignore[dict-item]
        assert sitting.folder == Path("evals") / name


def test_what_an_environment_says_of_an_option_is_the_suites_error() -> None:
    def bells(*, count: int) -> Bell:
        raise ValueError(f"count is {count}; a tower has one bell or more.")

    with pytest.raises(ConfigError, match=r"^suite 'tower': count is 0; a tower has one bell or more.$"):
        Suite("tower", "1", bells, options={"count": 0}).world()

"""A suite says what it measures; what may be compared has one hash."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentrl import Env, Suite, SuiteLimits, Task
from agentrl.errors import ConfigError, UnknownNameError
from agentrl.plugins import Host, load_host
from agentrl.runs.suites import find_suite, versions


class Bell(Env):
    """Say ding."""

    def __init__(self, *, word: str = "ding") -> None:
        self.word = word

    def tasks(self, split: str):
        return [Task(f"bell-{split}-{i}", "bell", i) for i in range(4)]

    def reset(self, task: Task) -> str:
        return f"say {self.word}"

    def reward(self) -> float:
        return 0.0


def generous(trajectory) -> float:
    return 1.0


BELL = Suite("bell", "1", Bell, {"word": "dong"})


def test_the_hash_is_of_what_is_measured_and_not_of_the_name() -> None:
    assert BELL.hash == replace(BELL, name="another").hash
    assert [task.id for task in BELL.tasks] == [f"bell-test-{i}" for i in range(4)]
    assert {task.split for task in BELL.tasks} == {"test"}
    others = [
        replace(BELL, version="2"),
        replace(BELL, options={"word": "ding"}),
        replace(BELL, count=3),
        replace(BELL, split="train"),
        replace(BELL, score=generous),
        replace(BELL, limits=SuiteLimits(max_steps=3)),
        replace(BELL, known_bad={"bell-test-1": "cracked"}),
    ]
    assert len({BELL.hash, *(other.hash for other in others)}) == 8


def test_bad_tasks_are_not_played_and_must_be_there() -> None:
    assert len(replace(BELL, known_bad={"bell-test-1": "cracked"}).tasks) == 3
    with pytest.raises(ConfigError, match=r"'bell-test-9' a bad task and has none of that name\. Did you mean"):
        _ = replace(BELL, known_bad={"bell-test-9": "cracked"}).tasks
    with pytest.raises(ConfigError, match="has no tasks in the split 'dusk'"):
        _ = Suite("bell", "1", Silent, split="dusk").tasks


class Silent(Bell):
    """No tasks."""

    def tasks(self, split: str):
        return []


def test_tasks_are_chosen_in_the_suites_order_and_a_wrong_name_is_told() -> None:
    assert [task.id for task in BELL.chosen(["bell-test-3", "bell-test-0"])] == ["bell-test-0", "bell-test-3"]
    assert [task.id for task in BELL.chosen(limit=2)] == ["bell-test-0", "bell-test-1"]
    with pytest.raises(ConfigError, match=r"no task 'bell-test-7'\. Did you mean .* The first are: bell-test-0,"):
        BELL.chosen(["bell-test-7"])
    with pytest.raises(ConfigError, match="'bell-test-2' of bell is not played: cracked"):
        replace(BELL, known_bad={"bell-test-2": "cracked"}).chosen(["bell-test-2"])


@pytest.fixture(scope="module")
def host() -> Host:
    return load_host()


def test_the_suites_in_the_box_are_found_with_their_options(host: Host) -> None:
    suite = find_suite(host, "keydoor", ["size=5", "horizon=24"])
    assert len(suite.tasks) == 128 and suite.options["size"] == 5 and suite.hash != find_suite(host, "keydoor").hash
    desk = find_suite(host, "tool-desk", ["level=hard"])
    assert len(desk.tasks) == 128 and desk.tasks[0].tags[0] == "hard"
    assert versions(host, desk)["agentrl-tool-desk"] == "0.1.0"
    with pytest.raises(ConfigError, match="sise"):
        find_suite(host, "keydoor", ["sise=5"])
    with pytest.raises(UnknownNameError, match=r"no suite and no recipe is called 'keydor'\. Did you mean 'keydoor'"):
        find_suite(host, "keydor")
    with pytest.raises(UnknownNameError, match=r"There is an environment 'tool_desk': name a recipe"):
        find_suite(host, "tool_desk")


def test_a_recipe_means_its_held_out_tasks_within_its_limits(host: Host) -> None:
    suite = find_suite(host, "quickstart", ["evaluation.tasks=5"])
    assert len(suite.tasks) == 5 and suite.limits.max_tokens == 8 and suite.limits.max_context == 256
    assert suite.options["size"] == 4 and suite.tasks[0].id.startswith("keydoor-test-")
    with pytest.raises(ConfigError, match=r"evaluation\.tasks is 0"):
        find_suite(host, "quickstart", ["evaluation.tasks=0"])


def test_a_folder_that_is_no_run_is_told(host: Host, tmp_path) -> None:
    with pytest.raises(ConfigError, match="is no run"):
        find_suite(host, str(tmp_path))

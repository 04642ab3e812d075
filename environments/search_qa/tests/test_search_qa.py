"""search_qa: the generated world, scores, and who must not win."""

from __future__ import annotations

import json
import re
from functools import partial
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_qa.env import SearchQA
from search_qa.phrases import PHRASES
from search_qa.plugin import suite
from search_qa.scoring import citations, exact_match, f1, normalised, read_answer, supported
from search_qa.world import PATHS, make_world

from agentrl import call, say
from agentrl.environment import adapt
from agentrl.errors import ConfigError
from agentrl.plugins import load_host
from agentrl.testing import assert_environment, play
from agentrl.types import StepResult


def told(result: StepResult) -> str:
    return " ".join(message.content for message in result.observation.messages)


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("split", ["train", "test"])
async def test_oracle_answers_with_sources(hops: int, split: str) -> None:
    for task in islice(SearchQA(hops=hops).tasks(split), 40):
        results = await play(SearchQA(hops=hops), task)
        assert not any(result.policy_error for result in results)
        assert results[-1].terminated and results[-1].reward == 1.0
        assert results[-1].scores == {
            **{"success": 1.0, "em": 1.0, "f1": 1.0, "citation_precision": 1.0, "citation_recall": 1.0},
            "unsupported": 0.0,
        }


def test_a_question_of_n_hops_takes_n_documents() -> None:
    for split, phrases in PHRASES.items():
        world = make_world(split, 0)
        by_id = {document.id: document for document in world.documents}
        for hops in PATHS:
            for seed in range(60):
                question = world.ask(phrases, hops, Random(seed))
                assert len(set(question.sources)) == hops and "{" not in question.text
                assert question.answers[0] not in question.text
                # Each document tells the next one's name, and only the last one the answer.
                for name, following in zip(question.sources, [*question.trail[1:], question.answers[0]], strict=True):
                    assert following in by_id[name].text
                for name in question.trail[1:]:
                    assert name not in question.text


def test_no_fact_stands_in_two_documents() -> None:
    world = make_world("train", 3)
    for name, thing in world.things.items():
        others = [other.document.text for other in world.things.values() if other is not thing]
        if thing.kind == "town":
            assert thing.facts["river"] in thing.document.text
            assert not any(thing.facts["river"] in text for text in others), name


def test_splits_share_no_name_and_no_sentence() -> None:
    def names(split: str) -> set[str]:
        texts = " ".join(d.title + " " + d.text for world in range(12) for d in make_world(split, world).documents)
        made = re.findall(r"\b[A-Z][a-z]+\b", texts)
        fixed = " ".join(form for forms in PHRASES[split].documents.values() for form in forms)
        return set(made) - set(re.findall(r"\w+", fixed))

    train, test = names("train"), names("test")
    assert len(train) > 500 and train.isdisjoint(test)
    years = {
        split: {int(y) for d in make_world(split, 0).documents for y in re.findall(r"\b1\d{3}\b", d.text)}
        for split in PHRASES
    }
    assert years["train"] and years["test"] and years["train"].isdisjoint(years["test"])
    forms = [
        {*sum(p.documents.values(), ()), *p.questions, *p.relations.values(), *p.works, *p.trades, *p.regions}
        for p in PHRASES.values()
    ]
    assert forms[0].isdisjoint(forms[1])


def test_worlds_of_one_split_differ_so_that_answers_cannot_be_learnt() -> None:
    worlds = [set(make_world("train", number).things) for number in range(6)]
    assert all(len(one & other) <= 4 for one in worlds for other in worlds if one is not other)


@pytest.mark.parametrize(
    ("text", "right", "em", "f"),
    [
        ("The Nile.", ["nile"], 1.0, 1.0),
        ("a  NILE river", ["Nile"], 0.0, 2 / 3),
        ("Amazon", ["Nile", "amazon"], 1.0, 1.0),
        ("", ["Nile"], 0.0, 0.0),
        ("the", ["Nile"], 0.0, 0.0),
        ("Nile Nile", ["Nile"], 0.0, 2 / 3),
        ("U.S.A.", ["usa"], 1.0, 1.0),
    ],
)
def test_exact_match_and_f1_are_squads(text: str, right: list[str], em: float, f: float) -> None:
    assert exact_match(text, right) == em and f1(text, right) == pytest.approx(f)


@given(st.text(max_size=60))
@settings(max_examples=50, deadline=None)
def test_normalisation_is_done_once(text: str) -> None:
    once = normalised(text)
    assert exact_match(text, [text]) == float(bool(once)) and f1(text, [text]) == float(bool(once.split()))


def test_answers_are_read_without_their_citations() -> None:
    assert read_answer("I looked. Answer: Nile [d1] [d2, d1]").text == "Nile"
    assert read_answer("Nile [d1] [d2, d1]").cited == ("d1", "d2")
    assert read_answer("x" * 5000).text == "x" * 1000


def test_citations_and_support_are_told_apart() -> None:
    assert citations(["a", "x"], ["a", "b"], {}).precision == citations(["a", "x"], ["a", "b"], {}).recall == 0.5
    assert citations([], ["a"], {}).precision == citations([], ["a"], {}).recall == 0.0
    assert citations(["a"], [], {"a": True}).recall == 1.0 and citations(["a"], [], {"a": False}).precision == 0.0
    assert supported("the Nile", ["On the nile, far away"]) and not supported("Nile", ["Niles"])
    assert not supported("", ["anything"])


async def test_a_right_answer_that_was_seen_nowhere_is_marked() -> None:
    task = next(SearchQA().tasks("train"))
    (guessed,) = await play(SearchQA(), task, [say(f"{task.data['answers'][0]} [d1]")])
    assert guessed.scores["em"] == guessed.scores["unsupported"] == 1.0
    assert guessed.scores["citation_precision"] == guessed.scores["citation_recall"] == 0.0


async def test_only_what_was_found_can_be_opened() -> None:
    task = next(SearchQA(hops=1).tasks("train"))
    source = task.data["sources"][0]
    lines = [call("open", document=source), call("search", query=task.data["trail"][0]), call("open", document=source)]
    first, _, third = await play(SearchQA(hops=1), task, lines)
    assert first.policy_error == f"no search has found '{source}'; found: none yet."
    assert not third.policy_error and task.data["answers"][0] in told(third)


async def test_a_restored_episode_goes_on_as_the_first_one() -> None:
    for task in islice(SearchQA(hops=3).tasks("train"), 10):
        env = SearchQA(hops=3)
        first, second = adapt(env), adapt(SearchQA(hops=3))
        await first.reset(task)
        line = [*env.oracle(task)]
        for action in line[:2]:
            await first.step(action)
        kept: Any = await first.snapshot()  # type: ignore[attr-defined]
        await second.restore(json.loads(json.dumps(kept)))  # type: ignore[attr-defined]
        for action in line[2:]:
            assert await first.step(action) == await second.step(action)


def test_the_suite_is_held_out_and_stable() -> None:
    made = suite()
    assert len(made.tasks) == 256 and {task.split for task in made.tasks} == {"test"}
    assert made.hash == suite().hash != suite(hops=1).hash
    assert {tag for task in made.tasks for tag in task.tags} == {"1-hop", "2-hop", "3-hop"}


async def test_state_keys_know_what_was_found() -> None:
    task = next(SearchQA(hops=1).tasks("train"))
    name = task.data["trail"][0]
    one, two = [(await play(SearchQA(hops=1), task, [call("search", query=q)]))[0] for q in (name, f"{name}?")]
    assert one.observation.state_key == two.observation.state_key
    (three,) = await play(SearchQA(hops=1), task, [call("search", query="zzz")])
    assert three.observation.state_key != one.observation.state_key
    assert told(three) == "nothing was found; try other words."


@pytest.mark.parametrize(
    ("options", "words_of_error"),
    [
        ({"hops": 4}, "hops is 4"),
        ({"reward": "rouge"}, "must be one of 'em' or 'f1'"),
        ({"topk": 0}, "topk 0"),
        ({"cuts": {"snippet": 0}}, "snippet 0"),
        ({"corpus": {"index": "x"}}, "needs a value for 'corpus.questions'"),
        ({"corpus": {"questions": "z"}}, "one of them answers"),
        ({"corpus": {"questions": "z", "index": "x", "retriever_url": "http://y"}}, "one of them answers"),
        ({"corpus": {"questions": "z", "indx": "x"}}, "Did you mean 'index'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words_of_error: str) -> None:
    with pytest.raises(ConfigError, match=words_of_error):
        load_host().create("environments", "search_qa", options)


@pytest.mark.parametrize("options", [{"hops": 1}, {"hops": 3, "reward": "f1"}])
def test_the_shipped_check_finds_it_sound(options: dict[str, Any]) -> None:
    assert_environment(partial(SearchQA, **options), tasks=4)

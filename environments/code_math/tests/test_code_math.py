"""code_math: the problems and their splits, the answers that count, the tool, and files of one's own."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from code_math.answers import final, is_right, value_of
from code_math.env import CodeMath, shown
from code_math.families import FAMILIES
from code_math.files import read_problems
from code_math.plugin import suite
from code_math.problems import LEVELS, Level, Problem, make_problem, share_of
from code_math.values import Words, parse, same
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl import Task, call, say
from agentrl.environment import adapt
from agentrl.errors import ConfigError
from agentrl.sandbox import Limits, Ran
from agentrl.testing import assert_environment, play


def a_task(question: str, answer: str) -> Task:
    return Task("t", "code_math", data=Problem(question, answer).to_json())


@pytest.mark.parametrize("level", LEVELS)
async def test_the_oracle_computes_every_answer(level: Level) -> None:
    seen = set()
    for split in ("train", "test"):
        for task in islice(CodeMath(level=level).tasks(split), 40):
            results = await play(CodeMath(level=level), task)
            assert results[-1].scores["success"] == 1.0 and results[-1].reward == 1.0, task
            assert results[-1].scores["failed_runs"] == 0.0 and results[-1].scores["runs"] >= 1.0
            seen.add(task.tags[1])
    assert len(seen) > len(FAMILIES) / 3


@pytest.mark.parametrize("level", LEVELS)
def test_splits_share_no_instance(level: Level) -> None:
    env = CodeMath(level=level)
    train = {task.data["question"] for task in islice(env.tasks("train"), 1500)}
    test = [task.data["question"] for task in env.tasks("test")]
    examples = {make_problem("example", level, seed).question for seed in range(200)}
    assert len(test) == 256 and not train & set(test) and not examples & (train | set(test))
    assert {share_of(question) for question in test} == {0} and {share_of(q) for q in train} == {2, 3, 4}
    assert make_problem("test", level, 7) == make_problem("test", level, 7)


def test_no_split_asks_what_another_asks_with_its_numbers_exchanged() -> None:
    def asked(split: str, count: int) -> set[tuple[str, ...]]:
        made = (make_problem(split, "easy", seed) for seed in range(count))
        return {tuple(sorted(re.findall(r"\d+", p.question))) for p in made if p.family == "multiples"}

    test, train = asked("test", 256), asked("train", 2500)
    assert len(test) > 20 and len(train) > 200 and not test & train


def test_the_suite_is_the_held_out_split() -> None:
    made = suite(level="hard")
    assert [task.data for task in made.tasks] == [task.data for task in CodeMath(level="hard").tasks("test")]
    assert made.hash != suite(level="medium").hash


def test_levels_are_graded() -> None:
    def digits(level: Level) -> int:
        return sum(c.isdigit() for seed in range(200) for c in make_problem("train", level, seed).question)

    assert digits("easy") < digits("medium") < digits("hard")
    assert not any(make_problem("train", "hard", seed).answer in ("0", "1") for seed in range(300))


async def test_what_solved_examples_show_is_what_the_tool_says() -> None:
    for level in LEVELS:
        env = CodeMath(level=level, shots=4)
        world = adapt(env)
        await world.reset(next(env.tasks("train")))
        for message, answer in zip(env.examples, env.examples[1:], strict=False):
            if message.role == "user":
                await world.reset(next(env.tasks("train")))
            for made in message.tool_calls:
                assert await env.python(**made.arguments) == answer.content
        await world.close()


RIGHT = [
    *(
        ("1/3", "0.3333"),
        ("1/2", "0.5"),
        ("0.5", "1/2"),
        ("3", "3.0"),
        ("3", "2.9999999999999996"),
        ("3.14159", "3.142"),
    ),
    *(("1234", "1,234"), ("1e3", "1000"), ("-7/2", "-3 1/2"), ("-7/2", "\\frac{-7}{2}"), ("1/3", "Fraction(1, 3)")),
    *(
        ("{2, 3}", "[3, 2]"),
        ("{2, 3}", "3 and 2"),
        ("(2, 3)", "2, 3"),
        ("{1/2, -3}", "x = -3 or x = 0.5"),
        ("{2}", "2"),
    ),
    *(("5 km", "5000 m"), ("5 km", "5"), ("72 km/h", "20 m/s"), ("90 min", "1.5 hours"), ("$4.50", "4.5 dollars")),
    *(("50%", "0.5"), ("25 cents", "$0.25"), ("12", "There are 12 apples."), ("12", "The answer is: $12$.")),
    *(("6.02e23", "6.02 \\times 10^{23}"), ("602000", "6.02×10^5"), ("6.02 \\cdot 10^{-2}", "0.0602")),
    *(("2\\frac{1}{2}", "2.5"), ("\\frac12", "0.5"), ("\\frac{1}2", "1/2"), ("3½", "3.5"), ("½", "\\dfrac{1}{2}")),
    *(("1{,}234", "1234"), ("1\u202f234", "1\\,234"), ("-3", "\u22123"), ("-3", "\u20133"), ("106", "**106**")),
    *(("1/3", "It is about 0.3333."), ("3", "about 3"), ("about 3", "3"), ("3.14159", "roughly 3.142")),
    *(("1/2", "The probability is 50%."), ("50%", "50"), ("50%", "0.5"), ("25", "25%"), ("90^\\circ", "90 degrees")),
    *(("[2, 5)", "[2,5)"), ("x+1", "x + 1"), ("2\\pi", "$2 \\pi$"), ("(A)", "a"), ("1.5 h", "It takes 90 minutes.")),
    *(("1, 1, 2", "2, 1 and 1"), ("9 * 8 = 72\n#### 72", "72"), ("True", "true"), ("5 cm^2", "5"), ("5 m²", "5 m^2")),
    *(("12", "x = 12"), ("5", "First 3, then \\boxed{\\frac{10}{2}}"), ("Paris", " paris "), ("12", "12.")),
]
WRONG = [
    *(("1/3", "0.33"), ("3", "2.9999"), ("3", "4"), ("(2, 3)", "(3, 2)"), ("{2, 3}", "{2, 3, 4}"), ("{2, 3}", "{2}")),
    *(("5 km", "5 kg"), ("5 km", "5 m"), ("12", "12 or 13"), ("12", "between 10 and 12"), ("12", "1 2 12"), ("0", "")),
    *(("12", "\\boxed{}"), ("12", "\\boxed{13} is not 12"), ("1000000", "10**6"), ("6", "{6, 7}"), ("12", "12 " * 600)),
    *(("1/4096", "0.000"), ("0.0004", "0.000"), ("0.0006", "0.001"), ("1/21", "0.05"), ("1, 1, 2", "1, 2")),
    *(
        ("12 m", "It is 12 km."),
        ("106", "10**6"),
        ("2\\frac{1}{2}", "10.5"),
        ("0.5", "0.5%"),
        ("1+x/2", "\\frac{1+x}{2}"),
    ),
    *(
        ("7", "What is 7?"),
        ("12", "\\boxed{12} \\boxed{13}"),
        ("12", "#### 12 #### 13"),
        ("1/2", "1/2 or 1/3"),
        ("3-5", "3"),
    ),
]


@pytest.mark.parametrize(("right", "told"), RIGHT)
def test_answers_count_by_value(right: str, told: str) -> None:
    assert is_right(told, value_of(right))


@pytest.mark.parametrize(("right", "told"), WRONG)
def test_other_values_and_several_guesses_do_not_count(right: str, told: str) -> None:
    assert not is_right(told, value_of(right))


@given(
    st.fractions(max_denominator=9999).filter(lambda value: abs(value) > Fraction(1, 10**6)),
    st.integers(0, 7),
)
@settings(max_examples=200, deadline=None)
def test_a_rounded_answer_is_near(value: Fraction, places: int) -> None:
    said = f"{float(value):.{places}f}"
    if is_right(said, parse(str(value))):
        assert abs(Fraction(said) - value) <= abs(value) / 200


@given(st.fractions(max_denominator=999), st.sampled_from(["", " km", " apples", "%"]))
@settings(max_examples=100, deadline=None)
def test_a_number_equals_itself_and_not_its_neighbour(value: Any, unit: str) -> None:
    assert same(parse(f"{value}{unit}"), parse(f"{value}{unit}"))
    assert not same(parse(f"{value + 1}{unit}"), parse(f"{value}{unit}"))
    assert same(parse(f"\\boxed{{{value}}}"[7:-1]), parse(str(value)))


@given(st.text(alphabet="0123456789,.-+/{}()[] eE%$\\abcfr=", max_size=60))
@settings(max_examples=200, deadline=None)
def test_reading_an_answer_never_fails(text: str) -> None:
    value = parse(text)
    assert same(value, value) and isinstance(is_right(text, Words("a")), bool) and isinstance(final(text), str)


async def test_names_stay_between_calls_and_errors_are_shown() -> None:
    task = a_task("?", "6")
    line = [call("python", code="x = 2"), call("python", code="x *= 3\nx"), call("python", code="x / 0"), say("6")]
    results = await play(CodeMath(), task, line)
    told = [result.observation.messages[0].content for result in results[:3]]
    assert told == ["[no output]", "6", "ZeroDivisionError: division by zero (line 1)"]
    assert not any(result.policy_error for result in results)
    assert results[-1].scores == {"success": 1.0, "runs": 3.0, "failed_runs": 1.0, "answered": 1.0}


async def test_a_run_that_hits_a_limit_is_told_and_the_episode_goes_on() -> None:
    env = CodeMath(limits=Limits(seconds=0.3, memory=32 << 20))
    line = [call("python", code="x = 1\nwhile True: pass"), call("python", code="x"), say("6")]
    results = await play(env, a_task("?", "6"), line)
    first, second = (result.observation.messages[0].content for result in results[:2])
    assert "[stopped: limit of time]\n[the interpreter was restarted: its names are gone]" in first
    assert "NameError" in second and results[-1].reward == 1.0


def test_of_a_traceback_the_error_and_the_line_of_the_models_code_are_told() -> None:
    trace = 'Traceback (most recent call last):\n  File "<cell 1>", line 3, in <module>\n    json.loads("[")\n'
    trace += '  File "/usr/lib/python3/json/decoder.py", line 355, in raw_decode\n    raise JSONDecodeError(...)\n'
    told = shown(Ran("before", f"a warning\n{trace}JSONDecodeError: Expecting value\nand more\n", 1))
    assert told == "before\na warning\nJSONDecodeError: Expecting value\nand more (line 3)"
    frozen = 'Traceback (most recent call last):\n  File "<frozen importlib._bootstrap>", line 1324, in _find\n'
    assert shown(Ran("", f"{frozen}ModuleNotFoundError: no", 1)) == "ModuleNotFoundError: no"
    assert shown(Ran("", "Traceback (most recent call last):", 1)) == "[no output]"
    assert shown(Ran("", "a warning alone\n", 0)) == "a warning alone"


def test_long_output_keeps_both_ends() -> None:
    text = shown(Ran("a" * 3000 + "b" * 3000, "", 0))
    assert text.startswith("aaa") and text.endswith("bbb") and "[4,000 characters left out]" in text


async def test_code_that_does_other_things_leads_to_other_states() -> None:
    class Drawn(CodeMath):
        async def _opened(self) -> Any:
            return self

        async def run(self, code: str) -> Ran:
            return Ran(next(draws), "", 0)

    draws = iter(["1", "1", "2"])
    keys = []
    for _ in range(3):
        env = Drawn()
        await env.python("import random; random.random()")
        keys.append(env.state_key())
    assert keys[0] == keys[1] != keys[2]


async def test_a_restored_episode_goes_on_in_another_instance() -> None:
    task = a_task("?", "6")
    one, other = CodeMath(), CodeMath()
    first, second = adapt(one), adapt(other)
    await first.reset(task)
    await first.step(call("python", code="import random\nx = random.random()"))
    kept = json.loads(json.dumps(await first.snapshot()))  # type: ignore[attr-defined]
    await first.step(call("python", code="x = 0"))
    await second.restore(kept)  # type: ignore[attr-defined]
    results = [await second.step(call("python", code="x > 0, random.random()"))]
    await first.restore(kept)  # type: ignore[attr-defined]
    results.append(await first.step(call("python", code="x > 0, random.random()")))
    assert results[0].observation == results[1].observation
    assert results[0].observation.messages[0].content.startswith("(True, ")
    await first.close()
    await second.close()


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bwrap: apt-get install bubblewrap")
async def test_another_sandbox_plays_the_same_and_restores_by_running_again() -> None:
    task = next(iter(CodeMath(level="medium").tasks("test")))
    assert (await play(CodeMath(level="medium", sandbox="bubblewrap"), task))[-1].reward == 1.0
    one, other = CodeMath(sandbox="bubblewrap"), CodeMath(sandbox="bubblewrap")
    first, second = adapt(one), adapt(other)
    await first.reset(task)
    await first.step(call("python", code="open('kept', 'w').write('7')\nx = 3"))
    await second.restore(await first.snapshot())  # type: ignore[attr-defined]
    result = await second.step(call("python", code="x, open('kept').read()"))
    assert result.observation.messages[0].content == "(3, '7')"
    await first.close()
    await second.close()


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


GOOD = [
    {"question": f"What is {n} + {n}?", "answer": 2 * n, "split": "test" if n % 3 == 0 else "train"} for n in range(9)
]


async def test_problems_of_a_file_are_played(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *GOOD, "")
    env = CodeMath(problems=str(path))
    tasks = [*env.tasks("train"), *env.tasks("test")]
    assert [task.data["question"] for task in tasks] == [
        line["question"] for split in ("train", "test") for line in GOOD if line["split"] == split
    ]
    for task in tasks:
        assert (await play(CodeMath(problems=str(path)), task))[-1].reward == 1.0
    unsaid = write(tmp_path / "u.jsonl", *({"question": f"Question {n}?", "answer": "x"} for n in range(100)))
    found = read_problems(unsaid)
    assert 10 < len(found["test"]) < 35 and len(found["test"]) + len(found["train"]) == 100


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{not json", r"p.jsonl:10 is no JSON \(.*\); a line is an object"),
        ("[1]", "p.jsonl:10 holds list; a line is an object"),
        ("[" * 100_000, "p.jsonl:10 is no JSON"),
        ({"question": "?"}, "p.jsonl:10 has answer None, which is no text or a number; a line is an object"),
        ({"question": "?", "answer": [1, 2]}, r"p.jsonl:10 has answer \[1, 2\], which is no text or a number"),
        ('{"question": "?", "answer": NaN}', "p.jsonl:10 has answer nan"),
        ({"question": "?", "answer": "$$"}, r"p.jsonl:10 has answer '\$\$', which holds no value"),
        ({"question": "?\ud800", "answer": 1}, "p.jsonl:10 holds half a character"),
        ({"question": "", "answer": 1}, "p.jsonl:10 has question ''"),
        ({"question": "?", "answer": True}, "p.jsonl:10 has answer True"),
        ({"question": "?", "answer": 1, "anser": 2}, "p.jsonl:10 has the key 'anser'. Did you mean 'answer'"),
        ({"question": "?", "answer": 1, "split": "dev"}, "p.jsonl:10 has split 'dev'; there are"),
        ({"question": "what IS 1  + 1?", "answer": 2}, "p.jsonl:10 asks what line 2 asks"),
    ],
)
def test_a_broken_line_is_named_with_its_number(tmp_path: Path, line: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        CodeMath(problems=str(write(tmp_path / "p.jsonl", *GOOD, line)))


def test_a_file_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        CodeMath(problems=str(tmp_path / "none.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes('{"question": "é"'.encode("latin1"))
    with pytest.raises(ConfigError, match=r"latin.jsonl:1 is not UTF-8"):
        CodeMath(problems=str(tmp_path / "latin.jsonl"))
    (tmp_path / "plain.gz").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read: Not a gzipped file"):
        CodeMath(problems=str(tmp_path / "plain.gz"))
    with pytest.raises(ConfigError, match="has 1 problems and none of split 'test'"):
        CodeMath(problems=str(write(tmp_path / "p.jsonl", GOOD[1])))


def test_a_file_is_read_as_other_programs_write_it(tmp_path: Path) -> None:
    rows = [*GOOD, {"question": "a\u2028b\x85?", "answer": "7", "id": 3, "source": None}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    plain = write(tmp_path / "plain.jsonl", text)
    for name, data in {
        "bom.jsonl": b"\xef\xbb\xbf" + text.encode(),
        "crlf.jsonl": text.replace("\n", "\r\n").encode(),
        "packed.jsonl.gz": gzip.compress(text.encode()),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert read_problems(tmp_path / name) == read_problems(plain), name
    one, other = CodeMath(problems=str(plain)), CodeMath(problems=str(plain))
    assert one.given is other.given, "a file is read once a process"
    write(plain, *GOOD)
    assert len(CodeMath(problems=str(plain)).given["train"]) == len(one.given["train"]) - 1  # type: ignore[index]


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="easy, medium, hard"):
        CodeMath(level="extreme")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no sandbox is called 'embeded'\. Did you mean 'embedded'"):
        CodeMath(sandbox="embeded")
    with pytest.raises(ValueError, match="'train' and 'test'"):
        next(CodeMath().tasks("dev"))


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_the_shipped_check_finds_it_sound(level: Level) -> None:
    assert_environment(partial(CodeMath, level=level), tasks=4)

"""The plugin host: what is found, what is refused, and with which words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

import agentrl
from agentrl.discovery import missing_modules
from agentrl.errors import ConfigError, MissingDependencyError, PluginError, UnknownNameError
from agentrl.plugins import Host, Lazy, load_host, singular

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution with one module and one entry point on the path, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(distribution: str, module: str, source: str) -> None:
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[agentrl]\n{module} = {module}\n")

    return add


ENV = """
from agentrl import Env, Task

class TicketDesk(Env):
    "Close every ticket."
    def __init__(self, *, size: int = 3) -> None:
        self.size = size
    def tasks(self, split): return [Task("one", "ticket_desk")]
    def reset(self, task): return "hello"
"""


def registering(kind: str, **factories: Any) -> SimpleNamespace:
    return SimpleNamespace(**{f"agentrl_{kind}": lambda: factories})


def test_our_own_parts_come_through_the_entry_point() -> None:
    host = load_host()
    (plugin,) = [entry for entry in host.entries("plugins") if entry.name == "agentrl"]
    assert (plugin.distribution, plugin.state) == ("agentrl-framework", "ok")
    assert {"grpo", "gigpo"} <= {entry.name for entry in host.entries("methods")}


def test_every_renderer_that_is_registered_exists() -> None:
    from agentrl.rendering import renderer_names

    names = {entry.name for entry in load_host().entries("renderers") if entry.distribution == "agentrl-framework"}
    assert names <= set(renderer_names())


def test_every_built_in_part_can_be_imported() -> None:
    host = load_host()
    for entry in host.entries():
        if entry.distribution == "agentrl-framework" and entry.kind != "plugins" and entry.state == "ok":
            assert callable(host.factory(entry.kind, entry.name)), entry


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_here\n", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("def broken(:\n", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        (
            "import agentrl\n\n@agentrl.hookimpl\ndef agentrl_enviroments(): return {}\n",
            "Did you mean 'agentrl_environments'?",
        ),
        ("def agentrl_tools(): return 1 / 0\n", "agentrl_tools of 'faulty' raised ZeroDivisionError: division by zero"),
        ("x = 1\n", "registers nothing"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_reason_and_raises_nothing(
    install: Install, source: str, reason: str
) -> None:
    install("acme-faulty", "faulty", source)
    try:
        host = load_host()
    finally:
        sys.modules.pop("faulty", None)
    (entry,) = [entry for entry in host.entries("plugins") if entry.name == "faulty"]
    assert (entry.distribution, entry.version, entry.state) == ("acme-faulty", "1.5", "broken")
    assert reason in entry.detail
    assert host.entries("methods")
    with pytest.raises(UnknownNameError, match="Broken plugins: faulty; `agentrl list plugins` says why"):
        host.factory("environments", "faulty_world")


def test_the_reason_names_file_and_line(install: Install, tmp_path: Path) -> None:
    install("acme-faulty", "faulty", "x = 1\nimport no_such_module_here\n")
    (entry,) = [entry for entry in load_host().entries("plugins") if entry.name == "faulty"]
    assert f"{tmp_path / 'faulty.py'}:2" in entry.detail


def test_two_installed_plugins_with_one_name_are_an_error_that_names_both(install: Install) -> None:
    for owner in ("acme", "zenith"):
        install(f"{owner}-desk", f"{owner}_desk", "def agentrl_samplers(): return {'clever': list}\n")
    try:
        host = load_host()
    finally:
        for module in ("acme_desk", "zenith_desk"):
            sys.modules.pop(module, None)
    with pytest.raises(PluginError) as caught:
        host.factory("samplers", "clever")
    owners = "acme-desk (plugin 'acme_desk') and zenith-desk (plugin 'zenith_desk')"
    assert str(caught.value) == f"the sampler 'clever' is registered by {owners}. Uninstall or rename one."
    assert [entry.state for entry in host.entries("samplers") if entry.name == "clever"] == ["broken", "broken"]
    assert host.factory("samplers", "sequential")


def test_registering_a_taken_name_by_hand_raises_and_changes_nothing() -> None:
    host = load_host()
    with pytest.raises(
        PluginError, match=r"the method 'grpo' is registered by agentrl-framework .* and registered by hand"
    ):
        host.register(registering("methods", grpo=dict, mine=dict), name="notebook")
    with pytest.raises(UnknownNameError):
        host.factory("methods", "mine")
    host.register(registering("methods", mine=dict), name="notebook")
    assert host.create("methods", "mine") == {}


def test_an_unknown_name_gets_the_nearest_one() -> None:
    host = Host()
    host.register(registering("environments", tool_desk=dict))
    message = "no environment is called 'tool_dsk'. Did you mean 'tool_desk'? `agentrl list environments` shows all."
    with pytest.raises(UnknownNameError) as caught:
        host.factory("environments", "tool_dsk")
    assert str(caught.value) == message
    with pytest.raises(UnknownNameError, match=r"there is no kind 'enviroments'. Did you mean 'environments'\?"):
        host.entries("enviroments")


def test_a_hook_typo_is_refused_with_the_nearest_hook() -> None:
    plugin = SimpleNamespace(agentrl_before_updat=lambda batch: None)
    with pytest.raises(
        PluginError, match=r"has agentrl_before_updat\(\), which is no hook .* Did you mean 'agentrl_before_update'"
    ):
        Host().register(plugin)


def test_a_marked_function_of_any_other_name_is_refused() -> None:
    @agentrl.hookimpl
    def environments() -> dict[str, Any]:
        return {}

    with pytest.raises(PluginError, match=r"has environments\(\), which is no hook"):
        Host().register(SimpleNamespace(environments=environments))


def test_a_hook_with_an_argument_that_does_not_exist_is_refused() -> None:
    with pytest.raises(PluginError, match="trajectories"):
        Host().register(SimpleNamespace(agentrl_failure=lambda trajectories: None))


@pytest.mark.parametrize("returned", [None, ["desk"], {"desk": 3}, {3: dict}])
def test_a_hook_must_return_names_and_callables(returned: Any) -> None:
    with pytest.raises(PluginError, match="agentrl_environments of 'bad'"):
        Host().register(SimpleNamespace(agentrl_environments=lambda: returned), name="bad")


def test_a_lazy_factory_is_imported_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_part.py").write_text("def build(*, size: int = 1): return size * 10\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    host = Host()
    host.register(registering("samplers", slow=Lazy("slow_part:build", summary="ten times size")))
    assert host.entries("samplers")[0].detail == "ten times size"
    assert "slow_part" not in sys.modules
    assert host.create("samplers", "slow", {"size": 4}) == 40


def test_a_missing_extra_is_an_entry_and_an_error_with_the_pip_line(install: Install) -> None:
    install(
        "acme-desk",
        "acme_desk",
        "import agentrl\n"
        "def agentrl_engines():\n"
        "    return {'warp': agentrl.Lazy('acme_warp:Engine', requires=('no_such_library',), extra='warp')}\n",
    )
    try:
        host = load_host()
    finally:
        sys.modules.pop("acme_desk", None)
    (entry,) = [entry for entry in host.entries("engines") if entry.name == "warp"]
    line = 'pip install "acme-desk[warp]"'
    assert (entry.state, entry.detail, entry.install) == ("missing", "needs no_such_library", line)
    with pytest.raises(MissingDependencyError) as caught:
        host.factory("engines", "warp")
    assert str(caught.value) == f"engine 'warp' needs no_such_library, which is not installed. Run: {line}"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_part:build", "No module named 'no_such_part'"),
        ("json:nothing", "nothing"),
        ("json:__name__", "not callable"),
    ],
)
def test_a_lazy_target_that_is_not_there_is_a_plugin_error(target: str, words: str) -> None:
    host = Host()
    host.register(registering("samplers", lost=Lazy(target)))
    with pytest.raises(PluginError, match=words):
        host.factory("samplers", "lost")


def test_a_lazy_target_without_attribute_is_refused() -> None:
    with pytest.raises(PluginError, match="'json' is not of the form 'module:attribute'"):
        Lazy("json")


@dataclass(frozen=True)
class Nested:
    low: float = 0.2


class Desk:
    def __init__(
        self,
        folder: Path,
        *,
        size: int = 3,
        names: tuple[str, ...] = (),
        mode: Literal["a", "b"] = "a",
        clip: Nested = Nested(),
    ) -> None:
        if size < 0:
            raise ValueError(f"size is {size}; a desk has 0 tickets or more.")
        self.values = (folder, size, names, mode, clip)


@pytest.fixture
def desk() -> Host:
    host = Host()
    host.register(registering("environments", desk=Desk))
    return host


def test_options_are_converted_and_what_the_run_gives_is_passed_as_it_is(desk: Host) -> None:
    options = {"size": 4, "names": ["x"], "mode": "b", "clip": {"low": 1}}
    given = {"folder": Path("runs"), "model": object()}
    built = desk.create("environments", "desk", options, given=given)
    assert built.values == (Path("runs"), 4, ("x",), "b", Nested(1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"siz": 4}, "[environment] has no key 'siz'. Did you mean 'size'? Allowed: clip, mode, names, size."),
        ({"folder": 3}, "[environment] folder = 3: must be text in quotes."),
        ({"size": "4"}, '[environment] size = "4": must be a whole number.'),
        ({"size": True}, "[environment] size = true: must be a whole number."),
        ({"names": "x"}, '[environment] names = "x": must be a list [...].'),
        ({"mode": "c"}, "[environment] mode = \"c\": must be one of 'a' or 'b'."),
        ({"clip": {"lo": 1}}, "[environment] has no key 'clip.lo'. Did you mean 'low'? Allowed: low."),
        ({"clip": {"low": float("nan")}}, "[environment] clip.low = NaN: must be a finite number."),
        ({"size": -1}, "[environment] size is -1; a desk has 0 tickets or more."),
    ],
)
def test_an_option_that_does_not_fit_is_refused(desk: Host, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        desk.create("environments", "desk", options, given={"folder": Path()}, where="[environment]")
    assert str(caught.value) == message


def test_an_option_of_the_recipe_wins_over_what_the_run_gives(desk: Host) -> None:
    built = desk.create("environments", "desk", {"folder": "mine"}, given={"folder": Path("runs")})
    assert built.values[0] == Path("mine")


def test_all_wrong_options_are_told_at_once(desk: Host) -> None:
    problems = desk.check("environments", "desk", {"size": "x", "sise": 1}, offered=("folder",), where="[environment]")
    assert len(problems) == 2


def test_a_parameter_that_nobody_gives_is_named(desk: Host) -> None:
    assert desk.check("environments", "desk", {}) == ("needs a value for 'folder'.",)


def shelf(size: int = 3, **options: object) -> tuple[int, dict[str, object]]:
    return size, options


def test_a_factory_of_open_options_takes_any_and_checks_those_it_names() -> None:
    host = Host()
    host.register(registering("environments", shelf=shelf))
    assert host.create("environments", "shelf", {"size": 4, "colour": [1]}) == (4, {"colour": [1]})
    assert host.check("environments", "shelf", {"size": "4", "colour": 1}) == ('size = "4": must be a whole number.',)


def test_annotations_for_type_checkers_only_do_not_matter(tmp_path: Path) -> None:
    source = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import torch
def build(model: torch.nn.Module, *, size: int = 1): return size
def agentrl_engines(): return {"mine": build}
"""
    path = tmp_path / "checked_only.py"
    path.write_text(source)
    host = load_host([str(path)])
    assert host.create("engines", "mine", {"size": 2}, given={"model": "weights"}) == 2
    with pytest.raises(ConfigError, match=r'size = "2": must be a whole number'):
        host.create("engines", "mine", {"size": "2"}, given={"model": "weights"})


def test_a_file_with_an_environment_class_is_a_plugin(tmp_path: Path) -> None:
    path = tmp_path / "desk_file.py"
    path.write_text(ENV)
    host = load_host([str(path)])
    assert host.create("environments", "ticket_desk", {"size": 5}).size == 5
    (entry,) = [entry for entry in host.entries("environments") if entry.name == "ticket_desk"]
    assert (entry.distribution, entry.detail) == (str(path), "Close every ticket.")


def test_an_entry_point_may_be_the_class_itself(install: Install, tmp_path: Path) -> None:
    install("acme-tickets", "acme_tickets", ENV)
    points = tmp_path / "acme_tickets-1.5.dist-info" / "entry_points.txt"
    points.write_text("[agentrl]\ntickets = acme_tickets:TicketDesk\n")
    assert load_host().create("environments", "tickets").size == 3


def test_a_class_is_registered_by_hand_under_its_name_in_small_letters() -> None:
    namespace: dict[str, Any] = {"__name__": "notebook"}
    exec(ENV, namespace)
    host = Host()
    host.register(namespace["TicketDesk"])
    assert host.create("environments", "ticket_desk", {"size": 2}).size == 2


def test_a_cell_that_is_run_twice_replaces_its_class() -> None:
    host = Host()
    for size in (3, 7):
        namespace: dict[str, Any] = {"__name__": "notebook"}
        exec(ENV.replace("size: int = 3", f"size: int = {size}"), namespace)
        host.register(namespace["TicketDesk"])
    assert host.create("environments", "ticket_desk").size == 7
    assert len(host.entries("plugins")) == 1


@pytest.mark.parametrize("source", [ENV, "def agentrl_samplers(): return {'clever': list}\n"])
def test_an_installed_plugin_may_be_named_as_well(install: Install, tmp_path: Path, source: str) -> None:
    install("acme-named", "acme_named", source)
    try:
        host = load_host(["acme_named", str(tmp_path / "acme_named.py")])
    finally:
        sys.modules.pop("acme_named", None)
    assert host.factory("environments", "ticket_desk") if source is ENV else host.factory("samplers", "clever")


def test_a_named_file_imports_the_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "desk_beside_it.py").write_text(ENV)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('a file of the user stands in for the library')")
    path = tmp_path / "larger_desk.py"
    path.write_text(
        "import colorsys\nfrom desk_beside_it import TicketDesk\n\n\nclass LargerDesk(TicketDesk):\n    pass\n"
    )
    assert load_host([str(path)]).create("environments", "larger_desk").size == 3
    assert sys.path[-1] == str(tmp_path)
    (tmp_path / "a_tracker_that_is_not_installed").mkdir()
    assert missing_modules(["a_tracker_that_is_not_installed"]) == ("a_tracker_that_is_not_installed",)


def test_a_plugin_that_the_user_names_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"there is no file 'nothing.py'"):
        load_host(["nothing.py"])
    with pytest.raises(PluginError, match="the plugin 'no_such_module' cannot be imported: ModuleNotFoundError"):
        load_host(["no_such_module"])
    (tmp_path / "torn.py").write_text("def (")
    with pytest.raises(PluginError, match=r"SyntaxError: .*torn.py:1"):
        load_host([str(tmp_path / "torn.py")])


def test_any_plugin_may_drop_a_group() -> None:
    host = Host()
    host.register(SimpleNamespace(agentrl_keep_group=lambda group: None), name="silent")
    host.register(SimpleNamespace(agentrl_keep_group=lambda group: group != "bad"), name="strict")
    host.register(SimpleNamespace(agentrl_keep_group=lambda: True), name="lenient")
    assert False in host.events.agentrl_keep_group(group="bad")
    assert False not in host.events.agentrl_keep_group(group="good")


def test_kinds_have_a_singular() -> None:
    words = [
        singular(kind) for kind in ("strategies", "losses", "sandboxes", "context_policies", "suites", "reward_models")
    ]
    assert words == ["strategy", "loss", "sandbox", "context policy", "suite", "reward model"]

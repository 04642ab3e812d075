"""What is evaluated on: a suite of a plugin by its name, or the held-out tasks of a recipe or of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agentrl import __version__
from agentrl.config import find_recipe, load_config, recipes
from agentrl.errors import ConfigError, UnknownNameError, did_you_mean
from agentrl.evaluation.suite import Suite, SuiteLimits
from agentrl.options import parse_options
from agentrl.plugins import Host
from agentrl.sections import Config

DISTRIBUTION = "agentrl-framework"


def find_suite(host: Host, name: str, words: Sequence[str] = ()) -> Suite:
    """`words` are `key=value`: options of the suite, or keys of the recipe. Raises `ConfigError`."""
    known = [entry.name for entry in host.entries("suites")]
    if name in known:
        suite: Suite = host.create("suites", name, parse_options(words), where=f"suite {name!r}")
        return suite
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.toml").is_file():
            raise ConfigError(
                f"{folder} is no run: there is no config.toml in it.{_of_environment(host, name)} "
                "A suite's name, a recipe or a run's folder is needed."
            )
        return suite_of(host, load_config(folder / "config.toml", words))
    try:
        path = find_recipe(name)
    except ConfigError as error:
        if folder.suffix == ".toml":
            raise
        beside = map(str, folder.parent.iterdir()) if "/" in name and folder.parent.is_dir() else ()
        raise UnknownNameError(
            f"no suite and no recipe is called {name!r}."
            f"{_of_environment(host, name) or did_you_mean(name, [*known, *recipes(), *beside])} "
            f"Suites: {', '.join(known) or 'none'}. Recipes: {', '.join(sorted(recipes()))}. A run's folder works too."
        ) from error
    return suite_of(host, load_config(path, words))


def _of_environment(host: Host, name: str) -> str:
    """What to do where the name of an environment stands for a suite's."""
    if name not in [entry.name for entry in host.entries("environments")]:
        return ""
    return (
        f" There is an environment {name!r}: name a recipe that plays it, or give it a suite (docs/guides/evaluate.md)."
    )


def plugins_of(*names: str) -> list[str]:
    """The plugins that recipes and runs of those names bring; other names bring none."""
    found: list[str] = []
    for name in filter(None, names):
        folder = Path(name) / "config.toml"
        if folder.is_file() or Path(name).is_file() or name in recipes():
            found += load_config(folder if folder.is_file() else name).plugins
    return list(dict.fromkeys(found))


def suite_of(host: Host, config: Config) -> Suite:
    """The held-out tasks of a recipe, within its limits."""
    problems = host.check("environments", config.environment.name, config.environment.options, where="[environment]")
    if problems:
        raise ConfigError("\n".join(problems))
    rollout, settings = config.rollout, config.evaluation
    if not settings.tasks:
        raise ConfigError(f"the recipe {config.name!r} has no held-out tasks: evaluation.tasks is 0.")
    return Suite(
        name=config.name,
        version="recipe",
        environment=host.factory("environments", config.environment.name),
        options=config.environment.options,
        split=settings.split,
        count=settings.tasks,
        limits=SuiteLimits(
            max_steps=rollout.max_steps,
            max_tokens=rollout.max_tokens,
            max_context=rollout.max_context,
            episode_deadline=rollout.episode_deadline,
        ),
    )


def versions(host: Host, suite: Suite) -> Mapping[str, str]:
    """Of agentrl and of the distributions that brought the suite and its environment."""
    named = {"suites": {suite.name}, "environments": {task.env for task in suite.tasks}}
    entries = [entry for kind, names in named.items() for entry in host.entries(kind) if entry.name in names]
    return {DISTRIBUTION: __version__, **{entry.distribution: entry.version for entry in entries}}

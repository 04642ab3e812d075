"""The command `agentrl`: parses, and hands over to one plain function a command.

Nothing heavy is imported before a command runs, so that `agentrl --help` stays quick; errors of ours are printed as
one readable block, without a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from agentrl.cli.eval import command as eval_command
from agentrl.cli.flags import Plugins, unfolded
from agentrl.cli.replay import commands as replay_commands
from agentrl.cli.serve import command as serve_command
from agentrl.cli.wanted import Wanted
from agentrl.errors import AgentRLError, ConfigError, did_you_mean

INTERRUPTED = 130
Recipe = Annotated[str, typer.Argument(help="Path of a recipe, or its name in recipes/.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Keys of the recipe, as key.sub=value.", metavar="KEY=VALUE")
]
RunFolder = Annotated[Path | None, typer.Option("--run-folder", help="Where the run lives; runs/NAME by default.")]


class Commands(TyperGroup):
    """The commands in the box, and those of plugins, which are named without being imported."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None or ctx.resilient_parsing:
            return own
        from agentrl.cli.extensions import load, owners

        found = load(cmd_name)
        if found is None:
            self.suggest_commands = False  # typer's own suggestion does not know the plugins' commands
            ctx.fail(f"No such command {cmd_name!r}.{did_you_mean(cmd_name, [*self.commands, *owners()])}")
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        super().format_commands(ctx, formatter)
        from agentrl.cli.extensions import owners

        if brought := owners():
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, f"of {' and '.join(by)}") for name, by in brought.items()])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from None


def _group(help: str, **more: Any) -> typer.Typer:
    # Plain help: rich costs a tenth of a second at every start.
    return typer.Typer(help=help, rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False, **more)


app = _group(
    "Train and measure language-model agents in anyone's environment.",
    cls=Commands,
)
env_app = _group("Work on environments.")
new_app = _group("Begin something new.")
models_app = _group("Models in hand.")
config_app = _group("What a recipe may say.")
app.add_typer(env_app, name="env")
app.add_typer(new_app, name="new")
app.add_typer(models_app, name="models")
app.add_typer(config_app, name="config")
app.add_typer(replay_commands, name="replay")


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    pass


@app.command("list")
def list_parts(
    kind: Annotated[str | None, typer.Argument(help="environments, engines, methods, ... or plugins.")] = None,
    plugin: Plugins = None,
) -> None:
    """List what plugins registered: kind, name, distribution, version, state, and what installs what is missing."""
    from agentrl.cli.listing import print_entries

    print_entries(kind, plugin or [])


@app.command()
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and whether memory suffices.")] = False,
    run_folder: RunFolder = None,
    plugin: Plugins = None,
) -> None:
    """Train by a recipe. The same command continues a run that was stopped or killed."""
    from agentrl.cli.train import train as run_training

    run_training(recipe, overrides or [], dry_run, run_folder, plugin or [])


@app.command()
def sft(
    recipe: Recipe,
    overrides: Overrides = None,
    run_folder: RunFolder = None,
    plugin: Plugins = None,
) -> None:
    """Train on demonstrations only: the warm start of a recipe, by itself."""
    from agentrl.cli.train import sft as run_sft

    run_sft(recipe, overrides or [], run_folder, plugin or [])


app.command("eval")(eval_command)
app.command("serve")(serve_command)


@app.command()
def play(
    name: Annotated[str, typer.Argument(help="An environment.")],
    options: Annotated[list[str] | None, typer.Argument(help="Its options, as key=value.", metavar="KEY=VALUE")] = None,
    split: Annotated[str, typer.Option(help="Whose tasks: train or test.")] = "train",
    task: Annotated[str | None, typer.Option(help="Id of a task; the first one if left out.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the task's own.")] = None,
    plugin: Plugins = None,
) -> None:
    """Be the model: play an environment in the terminal."""
    from agentrl.cli.env import play as play_environment

    play_environment(name, options or [], plugin or [], split=split, task=task, seed=seed)


@app.command()
def view(
    folders: Annotated[list[Path], typer.Argument(help="A run or an evaluation, and others to compare it with.")],
    export: Annotated[Path | None, typer.Option(help="Write one HTML file that opens from disk instead.")] = None,
    episode: Annotated[str, typer.Option(help="Open this episode.")] = "",
    host: Annotated[str, typer.Option(help="A name of this machine; others are refused.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
) -> None:
    """Look at a run or an evaluation in the browser, down to each token; also while it goes on."""
    from agentrl.cli.view import serve, write

    if export is None:
        serve(folders, host, port, episode)
    else:
        write(folders, export, episode)


@app.command()
def doctor(
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder: what it does, and what every episode waits for.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    plugin: Plugins = None,
) -> None:
    """Say what works on this machine, what is lost without the rest and what brings it; or how a run is doing."""
    from agentrl.cli.doctor import doctor as examine

    examine(run, as_json, plugin or [])


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="An evaluation, a run, or a run's evaluations/*.json.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same suite.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say whether B is better than A, how sure that is, and on which tasks."""
    from agentrl.cli.compare import print_comparison

    print_comparison(before, after, as_json)


@app.command()
@unfolded
def export(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or an evaluation for its episodes.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    wanted: Wanted,
    plugin: Plugins = None,
) -> None:
    """Write weights in Hugging Face form with a model card, episodes as parquet, successes as fine-tuning data."""
    from agentrl.cli.export import export as write

    write(source, out, wanted, plugin or [])


@app.command()
def report(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="A run or an evaluation.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")],
    against: Annotated[list[Path] | None, typer.Option(help="Another one that the page compares. Repeatable.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the folder where it is there.")] = False,
) -> None:
    """Write a page that opens from the disk, and plots as PNG and SVG."""
    from agentrl.cli.report import report as write

    write(source, out, against or [], replace)


@env_app.command()
def check(
    name: Annotated[str, typer.Argument(help="An environment.")],
    options: Annotated[list[str] | None, typer.Argument(help="Its options, as key=value.", metavar="KEY=VALUE")] = None,
    tasks: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many tasks to play, half of them held out; 8, or fewer in a slow world, if left out."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random agent.")] = 0,
    plugin: Plugins = None,
) -> None:
    """Prove an environment sound: its oracle wins, null, random and cheating agents do not, and more."""
    from agentrl.cli.env import check as check_environment

    check_environment(name, options or [], plugin or [], tasks=tasks, seed=seed)


@env_app.command()
def install(
    name: Annotated[str, typer.Argument(help="An environment that `agentrl list environments` shows as missing.")],
    plugin: Plugins = None,
) -> None:
    """Make the virtual environment that an environment declares because its requirements conflict with ours."""
    from agentrl.cli.env import install as install_environment

    install_environment(name, plugin or [])


@new_app.command("env")
def new_env(
    name: Annotated[str, typer.Argument(help="Name of the package, such as ticket_desk.")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write it; here by default.")] = None,
) -> None:
    """Write an environment package that passes its own check."""
    from agentrl.cli.env import new as new_environment

    new_environment(name, folder or Path())


@models_app.command("get")
def models_get(name: Annotated[str, typer.Argument(help="A model that `agentrl models list` shows.")]) -> None:
    """Fetch and convert a model, once."""
    from agentrl.cli.models import get_model

    get_model(name)


@models_app.command("list")
def models_list() -> None:
    """List the models that can be had by name, and whether they are here."""
    from agentrl.cli.models import print_models

    print_models()


@models_app.command("merge")
def models_merge(
    out: Annotated[Path, typer.Argument(help="The new folder.")],
    trained: Annotated[
        list[str], typer.Argument(help="Folders of runs or models that were trained from the base; at least two.")
    ],
    base: Annotated[str, typer.Option("--base", help="The model that all of them were trained from.")],
    rule: Annotated[str, typer.Option(help="ram, ram+, average or ties.")] = "ram",
    threshold: Annotated[float, typer.Option(min=0, help="ram: the smallest change of a weight that counts.")] = 1e-5,
    density: Annotated[float, typer.Option(min=0, max=1, help="ties: which part of the changes is kept.")] = 0.2,
) -> None:
    """Merge agents that were trained from one base into one model, without training."""
    from agentrl.cli.models import make_rule, merge_models

    merge_models(out, base, trained, make_rule(rule, threshold=threshold, density=density))


@config_app.command("explain")
def config_explain(
    key: Annotated[
        str, typer.Argument(help="A key such as training.learning_rate, or a section; all if left out.")
    ] = "",
) -> None:
    """Say what a key means: type, default, range."""
    from agentrl.cli.settings import print_keys

    print_keys(key)


@config_app.command("show")
def config_show(recipe: Recipe, overrides: Overrides = None, plugin: Plugins = None) -> None:
    """Print the resolved config of a recipe, defaults included, after checking it against the plugins."""
    from agentrl.cli.settings import print_config

    print_config(recipe, overrides or [], plugin or [])


def run(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script. Exits with 0, 2 (wrong recipe or usage), 1 (other errors), 130 (Ctrl-C)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        from agentrl import __version__

        print(f"agentrl {__version__}")
        return
    debug = "--debug" in words
    try:
        app([word for word in words if word != "--debug"], prog_name="agentrl")
    except AgentRLError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except OSError as error:  # a full disk behind a redirection, a terminal that is gone
        if debug:
            raise
        print(
            f"error: {error}. Free space or fix the permissions, then try again; --debug shows where.", file=sys.stderr
        )
        sys.exit(1)


if __name__ == "__main__":
    run()

"""What all commands share: options, users' errors in one line, the rooms that are there.

A command of your own is `trainer/NAME/__main__.py`, run as `python -m trainer.NAME`; a project's
README has one. Its docstring is its help; the first line stands in that of `train.py` as well.
Import torch and the rest of the project only inside its function, so that `--help` stays quick.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Context, Option, Typer
from typer.core import TyperCommand

ConfigFile = Annotated[Path, Option("-c", "--config", help="A config, as given or below configs/.")]
Run = Annotated[Path, Argument(help="A run, a folder of runs (its newest), a checkpoint.")]
Overrides = Annotated[list[str] | None, Argument(metavar="KEY=VALUE", help="Changes to a config.")]
Device = Annotated[str | None, Option("-d", "--device", help="Such as auto, cpu, cuda:1 or mps.")]
RunId = Annotated[str | None, Option("--run-id", help="Start the run of this name or continue it.")]
LearningRate = Annotated[float | None, Option("--lr", help="Short for optimizer.args.lr.")]
BatchSize = Annotated[int | None, Option("--bs", help="Sets the loader's batch_size.")]
Debug = Annotated[bool, Option("--debug", help="Show tracebacks of errors.")]


def make_app(function: Callable[..., None], *, cls: type[TyperCommand] = TyperCommand) -> Typer:
    """Return the Typer app of one command: a function, and its module's docstring for help."""
    app = Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    text = sys.modules[function.__module__].__doc__ or ""
    text = text.replace("\n\n", "\n\n\b\n")  # keeps the lines
    settings = {"help_option_names": ["-h", "--help"]}
    app.command(cls=cls, help=text, context_settings=settings)(function)
    return app


@contextmanager
def single_process(*, debug: bool = False) -> Iterator[None]:
    """Log to the console, and end on a user's error with one line; torchrun is refused."""
    from base.errors import UsageError, exit_on_user_error
    from base.runtime import distributed
    from logger import setup_logging

    with exit_on_user_error(debug=debug):
        if distributed.world_size() > 1:
            raise UsageError("takes one process; start it with python, not with torchrun")
        setup_logging(None)
        yield


def with_short_options(
    overrides: list[str] | None,
    device: str | None = None,
    lr: float | None = None,
    bs: int | None = None,
) -> list[str]:
    """Return the overrides of a config, those of short options among them."""
    short = {"device": device, "optimizer.args.lr": lr, "data_loader.args.batch_size": bs}
    return [*(overrides or ()), *(f"{k}={v}" for k, v in short.items() if v is not None)]


# --- rooms, found by their folders --------------------------------------------------------------


def list_rooms() -> dict[str, str]:
    """Return what each room with a command is for, by its name; nothing is imported."""
    files = sorted(Path(__file__).parent.glob("*/__main__.py"))
    docs = {file.parent.name: ast.get_docstring(ast.parse(file.read_bytes())) for file in files}
    return {name: (doc or "").partition("\n")[0] for name, doc in docs.items()}


def _hint(option: str, value: str) -> str:
    """Return what to write for an option that there is not, "" where that is not known."""
    from base.config.schema import Config, TrainerConfig

    name = option[2:].replace("-", "_")
    if option in ("-c", "--config"):
        return "it takes a run: -r RUN"
    if name in list_rooms():
        return f"see: python -m trainer.{name} --help"
    section = "trainer." * (name in TrainerConfig.model_fields)
    return f"write {section}{name}={value}" if section or name in Config.model_fields else ""


class ScriptCommand(TyperCommand):
    """The command of train.py or test.py: its help ends with the rooms that are there."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Answer an option that there is not with what can be written instead."""
        known = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        for arg, after in pairwise([*args, "VALUE"]):
            option, _, value = arg.partition("=")
            if arg[:1] == "-" and option not in known and (hint := _hint(option, value or after)):
                ctx.fail(f"no option {option}; {hint}")
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: Context, formatter: Any) -> None:
        """List the rooms, a line each."""
        if rooms := list_rooms():
            with formatter.section("More commands"):
                formatter.write_dl([(f"python -m trainer.{n}", line) for n, line in rooms.items()])

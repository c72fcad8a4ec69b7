"""The ``genz-size`` command. Each command's file is imported when it is used."""

import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from sizing.cli.groups import Suggesting

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "size": ("sizing.cli.size", "Find the cheapest hardware for a model and targets."),
    "what-if": (
        "sizing.cli.what_if",
        "Compare a problem with variations of it: plans, costs and why.",
    ),
    "frontier": (
        "sizing.cli.frontier",
        "Draw the least cost over a target, the rate, NPUs or power.",
    ),
    "design": (
        "sizing.cli.design",
        "Find which accelerator should exist for a model and targets.",
    ),
    "estimate": ("sizing.cli.estimate", "Predict what deployments do, and why."),
    "simulate": (
        "sizing.cli.simulate",
        "Simulate every request of a plan, and say which targets hold.",
    ),
    "requirements": (
        "sizing.cli.requirements",
        "State the least that any platform must have, before choosing one.",
    ),
    "validate": (
        "sizing.cli.validate",
        "Compare predictions with measured results, row by row and in tables.",
    ),
    "characterize": (
        "sizing.cli.characterize",
        "Measure the kernels of the local accelerator.",
    ),
    "calibrate": (
        "sizing.cli.calibrate",
        "Fit an NPU's kernels to tables of measured operators.",
    ),
    "catalogue": ("sizing.cli.catalogue", "List and show NPUs, models and prices."),
    "new": ("sizing.cli.new", "Write an example problem file to start from."),
}

BAD_INPUT = 2
INFEASIBLE = 3
TIMED_OUT = 4
INTERRUPTED = 130


class _Lazy(Suggesting):
    """A group that imports a command only when it runs or shows its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order that people meet them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported; None if there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the commands' one-line helps without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"genz-size {version('genz-size')}")
        ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def cli(debug: bool) -> None:
    """Size hardware for serving large language models, with a proof.

    To begin: `genz-size size --model llama-3.1-8b --input-tokens 1000 --output-tokens
    200 --rate "5 req/s" --tpot "50 ms"`. An NPU is any accelerator: GPU, TPU or other.
    TTFT is the time to first token, TPOT that per output token after it, E2E that from
    arrival to the last token; tp, pp, ep, dp and cp are tensor, pipeline, expert, data
    and context parallel degrees.

    Results go to standard output, messages to standard error. Exit codes: 0 a
    plan or result, 2 bad input, 3 no plan is possible, or its
    simulation misses a target, 4 no answer in time, 130 interrupted.
    """


def main() -> None:
    """Run the command line; every error becomes one line and an exit code."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    from model_ops.errors import GenzSizeError

    try:
        result: Any = cli.main(arguments, prog_name="genz-size", standalone_mode=False)
    except click.exceptions.Abort as error:
        click.secho(str(error) or "interrupted", fg="red", err=True)
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return BAD_INPUT
    except click.ClickException as error:
        return _failed(arguments, error, error.format_message())
    except GenzSizeError as error:
        return _failed(arguments, error, str(error))
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:  # the last edge: a user never meets a traceback
        message = f"internal error, please report it: {type(error).__name__}: {error}"
        _failed(arguments, error, message)
        return 1
    return result if isinstance(result, int) else 0


def _failed(arguments: list[str], error: Exception, message: str) -> int:
    if "--debug" in arguments:
        traceback.print_exception(error)
    click.secho(f"genz-size: {' '.join(message.split())}", fg="red", err=True)
    return BAD_INPUT

"""The command line: ``fastgan-engine COMMAND``.

One module a command or group of commands. A command only turns flags into a configuration and calls the library;
everything heavy (torch, DALI) is imported inside the command's function, so that ``--help`` stays fast.
"""

import sys

import typer

from fastgan_engine.cli import (
    bench,
    data,
    doctor,
    evaluate,
    exchange,
    plan,
    profiles,
    report,
    sample,
    single,
    train,
    ui,
)
from fastgan_engine.cli.latent import interpolate, invert, mix, neighbors
from fastgan_engine.errors import UserError

app = typer.Typer(
    name="fastgan-engine",
    help="Train FastGAN from 60 to 5,000 images on one consumer NVIDIA card.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train.train)
app.command()(sample.sample)
app.command()(interpolate.interpolate)
app.command()(mix.mix)
app.command()(neighbors.neighbors)
app.command()(invert.invert)
app.command()(evaluate.evaluate)
app.command("import")(exchange.import_)
app.command("export")(exchange.export)
app.command()(plan.plan)
app.add_typer(single.app, name="single")
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")
app.add_typer(profiles.app, name="profiles")
app.command()(report.report)
app.command()(ui.ui)
app.command()(doctor.doctor)


def main() -> None:
    """Console entry point. Exit codes: 0 done, 1 the engine failed, 2 the input is wrong, 130 interrupted."""
    try:
        app()
    except UserError as error:
        typer.secho("error: ", err=True, nl=False, fg="red", bold=True)
        typer.echo(str(error), err=True)
        sys.exit(2)

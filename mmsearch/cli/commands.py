"""The program: its commands come from the other files here; each parses, calls one function and prints."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsearch import __version__
from mmsearch.cli import (
    backup_command,
    eval_commands,
    index_commands,
    model_commands,
    query_commands,
    serve_command,
    switch_command,
    train_commands,
    vector_commands,
)

app = typer.Typer(
    name="mmsearch",
    help="Search your own photos, videos and texts by meaning. Everything stays on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (
    index_commands,
    query_commands,
    serve_command,
    eval_commands,
    model_commands,
    train_commands,
    vector_commands,
    switch_command,
    backup_command,
):
    commands.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mmsearch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass

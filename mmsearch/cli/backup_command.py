"""``mmsearch backup``: a copy of an index while it is in use."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli.options import IndexOption, JsonOption
from mmsearch.cli.output import bytes_of, count_of, print_json


def backup(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder for the copy.", show_default=False)],
    index: IndexOption = "default",
    json_: JsonOption = False,
) -> None:
    """Copies an index as of one moment, also while it is searched or written to, and checks the copy.

    The copy is an index like any other; to restore it, put it back in the place of the index.
    """
    from mmsearch.api import Index

    with Index.open(index) as opened:
        made = opened.backup(folder)
    if json_:
        print_json(asdict(made))
        return
    held = f"{count_of(made.documents, 'document')}, {count_of(made.vectors, 'vector')}"
    print(f"copied to {made.path}: {held}, {bytes_of(made.bytes)}, checked")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(short_help="Copy an index while it is in use")(backup)

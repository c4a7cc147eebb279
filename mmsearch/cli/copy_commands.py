"""The commands that copy what an index holds: as an index, and as tables for other programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli.bars import progress_bar
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


def export(
    parquet: Annotated[Path, typer.Option(help="A new or empty folder for the files.", show_default=False)],
    filters: Annotated[
        str, typer.Argument(help="Only what these filters allow: 'type:image after:2021'.", show_default=False)
    ] = "",
    index: IndexOption = "default",
    json_: JsonOption = False,
) -> None:
    """Writes vectors, segments and metadata as Parquet, which pandas, DuckDB, Lance and `mmsearch import` read.

    One row is one segment: a picture, a video moment, a passage. docs/exchange.md describes the columns.
    """
    from mmsearch.api import Index

    with Index.open(index) as opened, progress_bar(hidden=json_) as progress:
        made = opened.export_parquet(parquet, filters, progress=progress)
    if json_:
        print_json({**asdict(made), "folder": str(made.folder)})
        return
    held = f"{count_of(made.documents, 'document')}, {count_of(made.segments, 'vector')}"
    print(f"wrote {held} to {count_of(made.files, 'file')} in {made.folder}, {bytes_of(made.bytes)}")


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command(short_help="Copy an index while it is in use")(backup)
    app.command(short_help="Write vectors and metadata as Parquet")(export)

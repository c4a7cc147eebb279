"""The command that shows what is there more than once: `duplicates`. It deletes nothing."""

from __future__ import annotations

import sys
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli import completion
from mmsearch.cli.bars import counting_bar
from mmsearch.cli.options import IndexOption, JsonOption
from mmsearch.cli.output import bytes_of, count_of, print_json, printable
from mmsearch.core.errors import UsageError

if TYPE_CHECKING:
    from mmsearch.core.types import DocumentInfo


def duplicates(
    filters: Annotated[
        str,
        typer.Argument(
            help="Only among what these filters allow: 'type:image after:2021'.",
            show_default=False, autocompletion=completion.queries,
        ),
    ] = "",
    index: IndexOption = "default",
    near: Annotated[
        float | None,
        typer.Option(min=0.5, max=1, help="How alike pictures must be, as a cosine (0.99).", show_default=False),
    ] = None,
    json_: JsonOption = False,
    paths: Annotated[
        bool, typer.Option("--paths", help="Print only the paths of what need not be kept.")
    ] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="The same, each followed by a NUL byte.")] = False,
) -> None:  # fmt: skip
    """Shows equal files and near-duplicate pictures in groups, the best of each first. Deletes nothing.

    The best has the most pixels, and is the oldest of those. Exit code 1: there are none.
    """
    from mmsearch.api import Index

    if json_ and (paths or null):
        raise UsageError("--json and --paths/-0 exclude each other")
    groups = copies = size = 0
    with Index.open(index) as opened:
        with counting_bar("comparing", hidden=json_) as seen:
            found = opened.duplicates(filters, near=near, progress=seen)
            first = [*islice(found, 1)]
        for group in chain(first, found):
            groups, copies = groups + 1, copies + len(group.documents) - 1
            size += sum(one.size for one in group.documents[1:])
            if json_:
                keep, *others = (one.as_json() for one in group.documents)
                print_json({"group": groups, "keep": keep, "others": others})
                continue
            for one in group.documents:
                if paths or null:
                    if one is not group.keep:
                        sys.stdout.write(one.path + ("\0" if null else "\n"))
                else:
                    print(f"{groups}\t{'keep' if one is group.keep else 'copy'}\t{_facts(one)}\t{printable(one.path)}")
    if not (json_ or paths or null):
        what = f"{count_of(groups, 'group')}: {count_of(copies, 'file')} of {bytes_of(size)} need not be kept"
        print(f"mmsearch: {what}; nothing was deleted" if groups else "mmsearch: no duplicates", file=sys.stderr)
    if not groups:
        raise typer.Exit(1)


def _facts(one: DocumentInfo) -> str:
    """``4000×3000 3.2 MB``."""
    pixels = f"{one.info.width}×{one.info.height} " if one.info.width and one.info.height else ""
    return f"{pixels}{bytes_of(one.size)}"


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(short_help="Show what is there more than once; deletes nothing")(duplicates)

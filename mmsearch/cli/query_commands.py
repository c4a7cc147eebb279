"""The commands that ask an index."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsearch.cli.output import Style, print_hits
from mmsearch.cli.shared import DeviceOption, IndexOption, JsonOption, encoder_options
from mmsearch.errors import UsageError


def query(
    text: Annotated[
        str | None,
        typer.Argument(
            help='What to look for: lake -people after:2021 path:holiday/* "exact words".', show_default=False
        ),
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="Look for what resembles this image; repeatable.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many answers.")] = 10,
    index: IndexOption = "default",
    modality: Annotated[list[str] | None, typer.Option(help="Only image, video or text; repeatable.")] = None,
    device: DeviceOption = "auto",
    raw: Annotated[bool, typer.Option("--raw", help="Take the text literally: no filters, no exclusions.")] = False,
    text_weight: Annotated[float, typer.Option(help="Weight of the text beside images.")] = 1.0,
    image_weight: Annotated[float, typer.Option(help="Weight of each image beside the text.")] = 1.0,
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out answers of less relevance, 0 to 1.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Answer also when nothing matches well.")] = False,
    no_collapse: Annotated[bool, typer.Option("--no-collapse", help="Show near-duplicates one by one.")] = False,
    queries: Annotated[
        Path | None, typer.Option(help="Ask every line of this file (- for standard input).", show_default=False)
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the parts of each score.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Also draw the answers as a contact sheet, to this PNG or JPEG file.")
    ] = None,
    open_: Annotated[int | None, typer.Option("--open", min=1, help="Open the answer of this rank.")] = None,
    thumbnails: Annotated[
        bool | None,
        typer.Option("--thumbnails/--no-thumbnails", help="Show pictures (by default where the terminal can)."),
    ] = None,
    json_: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values with a header.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print paths only.")] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="Print paths only, each followed by a NUL byte.")] = False,
) -> None:
    """Finds images and video moments (or texts, with type:text) by words, by images, or both."""
    from mmsearch.api import Index
    from mmsearch.search.options import NOTHING_BELOW, SearchOptions
    from mmsearch.search.question import Question

    style = Style(json_, paths, null, csv=csv, explain=explain, thumbnails=thumbnails)
    options = SearchOptions(
        k=k,
        modalities=tuple(modality) if modality else None,  # type: ignore[arg-type]
        min_relevance=min_score,
        nothing_below=None if all_ or min_score is not None else NOTHING_BELOW,
        collapse=not no_collapse,
    )
    if queries is not None:
        if text is not None or image:
            raise UsageError("--queries takes the place of a text and of --image: give one or the other")
        asked = [Question.of([line], raw=raw) for line in _lines(queries)]
    else:
        texts = [] if text is None else [text]
        asked = [Question.of(texts, image or [], text_weight=text_weight, image_weight=image_weight, raw=raw)]
    with Index.open(index, options=encoder_options(device)) as opened:
        answers = opened.search_many(asked, options=options)
    for number, hits in enumerate(answers, start=1):
        print_hits(hits, style, number if queries is not None else None)
    _extras(answers, sheet, open_)
    if not any(answers):
        if not json_ and queries is None:
            print(f"mmsearch: {_why_nothing(index, options, device, asked)}", file=sys.stderr)
        raise typer.Exit(1)


def _lines(path: Path) -> list[str]:
    """The questions of a file, one a line, without empty lines."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a text file: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"{path} holds no questions: one a line is expected")
    return lines


def _why_nothing(index: str, options: Any, device: str, asked: list[Any]) -> str:
    """Whether there is nothing at all, or only nothing good enough."""
    if options.min_relevance is None and options.nothing_below is None:
        return "nothing found: the index holds nothing of that kind"
    from dataclasses import replace

    from mmsearch.api import Index

    anything = replace(options, k=1, min_relevance=None, nothing_below=None)
    with Index.open(index, options=encoder_options(device)) as opened:
        found = opened.search_many(asked, options=anything)
    if not any(found):
        return "nothing found: the index holds nothing of that kind"
    return "nothing here matches well (--all shows the nearest)"


def _extras(answers: list[Any], sheet: Path | None, open_: int | None) -> None:
    """What is done with the answers beside printing them."""
    if sheet is not None:
        from mmsearch.cli.sheet import draw_sheet

        hits = [hit for found in answers for hit in found]
        if hits:
            draw_sheet(hits, sheet)
            print(f"{sheet}: {len(hits)} answers", file=sys.stderr)
    if open_ is not None:
        hits = answers[0] if answers else []
        if open_ > len(hits):
            raise UsageError(f"there is no answer {open_} to open: there are {len(hits)}")
        typer.launch(hits[open_ - 1].path)


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command()(query)

"""The commands that ask an index."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsearch.cli.asking_words import QueryCommand
from mmsearch.cli.options import IndexOption, JsonOption, with_options
from mmsearch.cli.output import Style, print_hits, print_json
from mmsearch.cli.shared import DeviceOption, encoder_options
from mmsearch.core.errors import UsageError
from mmsearch.query.options import SearchOptions

RawOption = Annotated[bool, typer.Option("--raw", help="Take the text literally: no filters, no exclusions.")]
ORDER = (
    "text", "image", "k", "index", "modalities", "device", "raw", "text_weight", "image_weight", "min_relevance",
    "nothing_below", "collapse", "queries",
)  # fmt: skip
"""How the help of `query` begins."""


def _completed(incomplete: str) -> list[str]:
    """How the question that is being typed could go on."""
    from mmsearch.query.language import complete

    return complete(incomplete)


def query(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            help='What to look for: lake -people after:2021 path:holiday/* "exact words". Several are one question.',
            show_default=False,
            autocompletion=_completed,
        ),
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="Look for what resembles this image; repeatable.")] = None,
    index: IndexOption = "default",
    device: DeviceOption = "auto",
    raw: RawOption = False,
    text_weight: Annotated[
        list[float] | None,
        typer.Option(
            help="Weight of the text beside images; once for all texts, or once for each.", show_default=False
        ),
    ] = None,
    image_weight: Annotated[
        list[float] | None,
        typer.Option(help="Weight of each image beside the text; once for all, or once each.", show_default=False),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Run every line of this file (- for standard input).", show_default=False)
    ] = None,
    *,
    options: SearchOptions,
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
    from mmsearch.query.question import Question

    style = Style(json_, paths, null, csv=csv, explain=explain, thumbnails=thumbnails)
    if queries is not None:
        if text or image:
            raise UsageError("--queries takes the place of a text and of --image: give one or the other")
        asked = [Question.of([line], raw=raw) for line in _lines(queries)]
    else:
        weights = {"text_weight": text_weight or 1.0, "image_weight": image_weight or 1.0}
        asked = [Question.of(text or [], image or [], raw=raw, **weights)]
    with Index.open(index, options=encoder_options(device, few_texts=queries is None)) as opened:
        answers = opened.search_many(asked, options=options, note=_told_once())
    for number, hits in enumerate(answers, start=1):
        print_hits(hits, style, number if queries is not None else None)
    _extras(answers, sheet, open_)
    if not any(answers):
        if not json_ and queries is None:
            print(f"mmsearch: {_why_nothing(index, options, device, asked)}", file=sys.stderr)
        raise typer.Exit(1)


def _told_once() -> Callable[[str], None]:
    """Prints a remark to the error stream, the same one only once, however many questions it is true of."""
    told: set[str] = set()

    def tell(remark: str) -> None:
        if remark not in told:
            told.add(remark)
            print(f"mmsearch: {remark}", file=sys.stderr)

    return tell


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


_HEAT_SOURCES = {
    "patches": "what each patch adds to the score",
    "reranker": "what the reranker loses without a place",
    "windows": "windows of the picture and squares that are covered",
}


def explain(
    text: Annotated[str, typer.Argument(help="The question, as for `query`.")],
    path: Annotated[Path, typer.Argument(help="An indexed file.")],
    index: IndexOption = "default",
    png: Annotated[Path | None, typer.Option(help="Draw where the picture matches, into this image file.")] = None,
    raw: RawOption = False,
    rerank: Annotated[
        str | None,
        typer.Option(metavar="[NAME]", help="Draw what a reranker looks at, as for `query`.", show_default=False),
    ] = None,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Shows why a file answers a question: the parts of its score, and with --png where in the picture.

    The map is read from the patches of the model where these tell (open_clip's own vision transformers), from the
    reranker with --rerank, else from parts of the picture that are encoded or covered one by one; it says which.
    """
    from mmsearch.api import Index

    with Index.open(index, options=encoder_options(device)) as opened:
        found = opened.explain(text, path, raw=raw, heat_map=png is not None, reranker=rerank, note=_told_once())
    if png is not None:
        _draw_heat(found, png)
    if json_:
        values = {name: value for name, value in vars(found).items() if name != "heat"}
        heat = None if found.heat is None else [[round(float(cell), 3) for cell in row] for row in found.heat]
        print_json({**values, "score": found.score, "heat": heat})
        return
    for name, value in found.parts.items():
        print(f"{name:12} {value:+.4f}")
    print(f"{'score':12} {found.score:+.4f}")
    if found.relevance is not None:
        print(f"{'relevance':12} {found.relevance:.3f}")
    for place, words in found.words.items():
        print(f"words in {place}: {', '.join(words)}")
    if found.excluded:
        print(f"left out, because it shows: {', '.join(found.excluded)}")
    if found.heat_source is not None:
        print(f"{png}: drawn from {_HEAT_SOURCES[found.heat_source]}")
    if not found.allowed:
        print("left out by the filters and exact words of the question")


def _draw_heat(found: Any, png: Path) -> None:
    from mmsearch.query.explain import drawn_heat

    picture = drawn_heat(found)
    try:
        picture.save(png)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture cannot be written to {png}: {error}") from error


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command(short_help="Find by words, by images, or both", cls=QueryCommand)(with_options(query, ORDER))
    app.command(short_help="Show why a file answers a question", cls=QueryCommand)(explain)

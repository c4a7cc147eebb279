"""The commands that search an index: `query`, `explain`, `serve`."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mmsearch.cli import completion
from mmsearch.cli.options import IndexOption, JsonOption, NeedsExtra, Only, with_options
from mmsearch.cli.output import (
    NOTHING_ALIKE,
    Asked,
    Style,
    count_of,
    moment_of,
    parts_of,
    print_hits,
    print_json,
    printable,
)
from mmsearch.core.errors import UsageError
from mmsearch.core.options import EncoderOptions
from mmsearch.core.shortage import sentence_of
from mmsearch.query.options import SearchOptions

DeviceOnly = Annotated[EncoderOptions, Only(("device",))]
RawOption = Annotated[bool, typer.Option("--raw", help="Take the text literally: no filters, no exclusions.")]


@with_options(
    "text image voice k index modalities device raw text_weight image_weight min_relevance strict every collapse "
    "queries"
)
def query(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            help='What to look for: lake -people after:2021 path:holiday/* "exact words". Several are one query.',
            show_default=False,
            autocompletion=completion.queries,
        ),
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="Look for what resembles this image; repeatable.")] = None,
    voice: Annotated[
        str | None,
        typer.Option(
            help="Ask what is said in this sound file; -: in the microphone (mmsearch[speech]).", show_default=False
        ),
    ] = None,
    index: IndexOption = "default",
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
    options: SearchOptions = SearchOptions(),
    every: Annotated[bool, typer.Option("--all", help="Print all weaker matches up to -k, not only a few.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show the parts of each score.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Also draw the results as a contact sheet, to this PNG or JPEG file.")
    ] = None,
    open_: Annotated[int | None, typer.Option("--open", min=1, help="Open the result of this rank.")] = None,
    copy_to: Annotated[
        Path | None, typer.Option(help="Also copy the files that are found into this folder.", show_default=False)
    ] = None,
    link_to: Annotated[
        Path | None, typer.Option(help="Also put links to them into this folder.", show_default=False)
    ] = None,
    thumbnails: Annotated[
        bool | None,
        typer.Option("--thumbnails/--no-thumbnails", help="Show pictures (by default where the terminal can)."),
    ] = None,
    json_: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values with a header.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print paths only.")] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="Print paths only, each followed by a NUL byte.")] = False,
    *,
    encoder: DeviceOnly,
) -> None:
    """Finds images and video moments (or texts, with type:text) by words, by images, or both.

    `mmsearch help query` has the query language with all its filters.
    """
    from mmsearch.api import Index
    from mmsearch.query.question import Question

    if voice is not None:
        from mmsearch.cli.speech_commands import understood

        said = understood(voice)
        print(f"mmsearch: understood: {said}", file=sys.stderr)
        text = [*(text or []), said.replace('"', "")]
    style = Style(json_, paths, null, csv=csv, explain=explain, thumbnails=thumbnails, every=every)
    lines = [] if queries is None else _lines(queries)
    if queries is not None:
        if text or image:
            raise UsageError("--queries takes the place of a text and of --image: give one or the other")
        parsed = [Question.of([line], raw=raw) for line in lines]
    else:
        weights = {"text_weight": text_weight or 1.0, "image_weight": image_weight or 1.0}
        parsed = [Question.of(text or [], image or [], raw=raw, **weights)]
    with Index.open(index, options=replace(encoder, few_texts=queries is None)) as opened:
        results = opened.search_many(parsed, options=options, note=_each_once())
        is_silent = any(results) or json_ or queries is not None
        reason = None if is_silent else _why_nothing(opened, options, parsed, results[0].reason)
    style.every |= options.min_relevance is not None
    for number, hits in enumerate(results, start=1):
        if queries is None and hits and not hits[0].match:
            print(f"mmsearch: {NOTHING_ALIKE}", file=sys.stderr)
        print_hits(hits, style, None if queries is None else Asked(number, lines[number - 1], hits.reason))
    shown = [style.of(hits) for hits in results]
    _extras(shown, sheet, open_)
    for folder, links in ((copy_to, False), (link_to, True)):
        if folder is not None:
            _collect([hit.path for hits in shown for hit in hits], folder, links=links)
    if reason is not None:
        print(f"mmsearch: {reason}", file=sys.stderr)
    if not any(results):
        raise typer.Exit(1)


def _collect(paths: Sequence[str], folder: Path, *, links: bool) -> None:
    from mmsearch.cli.collecting import collect

    done, what = collect(paths, folder.expanduser(), links=links), "linked" if links else "copied"
    for path, reason in done.missing:
        print(f"mmsearch: {printable(path)} is not {what}: {reason}", file=sys.stderr)
    there = f", {count_of(len(done.there), 'file')} there already" if done.there else ""
    print(f"{folder}: {count_of(len(done.made), 'file')} {what}{there}", file=sys.stderr)


def _each_once() -> Callable[[str], None]:
    """Prints a note to the error stream, the same one only once, however many queries it is true of."""
    shown: set[str] = set()

    def note(text: str) -> None:
        if text not in shown:
            shown.add(text)
            print(f"mmsearch: {text}", file=sys.stderr)

    return note


MOST_TEXT = 50_000_000
"""Characters of a file of queries."""


def _lines(path: Path) -> list[str]:
    """The queries of a file, one a line, without empty lines."""
    try:
        with contextlib.nullcontext(sys.stdin) if str(path) == "-" else path.open(encoding="utf-8") as file:
            text = file.read(MOST_TEXT + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a text file: {sentence_of(error) or error}") from error
    if len(text) > MOST_TEXT:
        raise UsageError(f"{path} has more than {MOST_TEXT:,} characters: split it into several files of queries")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"{path} holds no queries: one a line is expected")
    return lines


def _why_nothing(index: Any, options: SearchOptions, queries: Sequence[Any], reason: str | None) -> str:
    """Whether there is nothing at all, or only nothing good enough."""
    if reason is not None:
        return f"nothing found: {reason}"
    nearest = replace(options, k=1, min_relevance=None, strict=False)
    if nearest == replace(options, k=1) or not any(index.search_many(queries, options=nearest)):
        return "nothing found: the index holds nothing of that kind"
    return "nothing here matches well (without --strict and --min-relevance the nearest are shown)"


def _extras(results: Sequence[Sequence[Any]], sheet: Path | None, open_: int | None) -> None:
    """What is done with the results beside printing them."""
    if sheet is not None:
        from mmsearch.cli.sheet import draw_sheet

        all_hits = [hit for hits in results for hit in hits]
        if all_hits:
            draw_sheet(all_hits, sheet)
            print(f"{sheet}: {len(all_hits)} results", file=sys.stderr)
    if open_ is not None:
        first = results[0] if results else []
        if open_ > len(first):
            raise UsageError(f"there is no result {open_} to open: there are {len(first)}")
        _open(first[open_ - 1])


_PLAYERS = {
    "mpv": "--start={}", "vlc": "--start-time={}", "celluloid": "--mpv-start={}", "ffplay": "-ss {}",
    "mplayer": "-ss {}",
}  # fmt: skip
"""Programs that play from a time on, and how they take it, in seconds."""


def _open(hit: Any) -> None:
    """Shows a result: a moment in a player that begins there, where one is installed; all else as the desktop does."""
    import shutil
    import subprocess

    player = next((name for name in _PLAYERS if shutil.which(name)), None)
    if hit.start_s and player is not None and Path(hit.path).exists():
        start = _PLAYERS[player].format(f"{hit.start_s:.1f}").split()
        subprocess.Popen(
            [player, *start, hit.path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return
    typer.launch(_file_to_open(Path(hit.path)))


def _file_to_open(path: Path) -> str:
    """The file itself; of a member of an archive a copy, in a private folder that other programs can open it from."""
    if path.exists():
        return str(path)
    import tempfile

    from mmsearch.sources import read_sample

    data = read_sample(path)
    if data is None:
        raise UsageError(f"{path} is not there any more: there is nothing to open")
    copy = Path(tempfile.mkdtemp(prefix="mmsearch-")) / path.name
    copy.write_bytes(data)
    return str(copy)


_HEAT_SOURCES = {
    "patches": "what each patch adds to the score",
    "reranker": "what the reranker loses without a place",
    "windows": "windows of the picture and squares that are covered",
}


@with_options("text path index png raw rerank device")
def explain(
    text: Annotated[str, typer.Argument(help="The query, as for `query`.")],
    path: Annotated[Path, typer.Argument(help="An indexed file.")],
    index: IndexOption = "default",
    png: Annotated[Path | None, typer.Option(help="Draw where the picture matches, into this image file.")] = None,
    raw: RawOption = False,
    rerank: Annotated[
        str | None,
        typer.Option(metavar="[NAME]", help="Draw what a reranker looks at, as for `query`.", show_default=False),
    ] = None,
    *,
    encoder: DeviceOnly,
    json_: JsonOption = False,
) -> None:
    """Shows why a file matches a query: the parts of its score, and with --png where in the picture.

    The map is read from the patches of the model where these tell (open_clip's own vision transformers), from the
    reranker with --rerank, else from parts of the picture that are encoded or covered one by one; it says which.
    """
    from mmsearch.api import Index

    with Index.open(index, options=encoder) as opened:
        why = opened.explain(text, path, raw=raw, heat_map=png is not None, reranker=rerank, note=_each_once())
    if png is not None:
        _draw_heat(why, png)
    if json_:
        values = {name: value for name, value in vars(why).items() if name not in ("heat", "said", "sounds")}
        values["said"] = None if why.said is None else why.said.as_json()
        values["sounds"] = None if why.sounds is None else why.sounds.as_json()
        heat = None if why.heat is None else [[round(float(cell), 3) for cell in row] for row in why.heat]
        print_json({**values, "score": why.score, "heat": heat})
        return
    for name, value in why.parts.items():
        print(f"{name:12} {value:+.4f}")
    print(f"{'score':12} {why.score:+.4f}")
    if why.relevance is not None:
        print(f"{'relevance':12} {why.relevance:.3f}")
    for place, words in why.words.items():
        print(f"words in {place}: {', '.join(words)}")
    if why.said is not None:
        print(f"said at {moment_of(why.said)}: {printable(why.said.text or '')}")
        relevance = "" if why.said.relevance is None else f", relevance {why.said.relevance:.3f}"
        print(f"  {parts_of(why.said)}{relevance}")
        if why.said_words:
            print(f"  words in it: {', '.join(why.said_words)}")
    if why.sounds is not None:
        relevance = "" if why.sounds.relevance is None else f", relevance {why.sounds.relevance:.3f}"
        print(f"sounds at {moment_of(why.sounds)}: {parts_of(why.sounds)}{relevance}")
    if why.excluded:
        print(f"left out, because it shows: {', '.join(why.excluded)}")
    if why.heat_source is not None:
        print(f"{png}: drawn from {_HEAT_SOURCES[why.heat_source]}")
    if not why.allowed:
        print("left out by the filters and exact words of the query")


def _draw_heat(why: Any, png: Path) -> None:
    from mmsearch.query.explain import drawn_heat

    picture = drawn_heat(why)
    try:
        picture.save(png)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture cannot be written to {png}: {error}") from error


@with_options("index host port token open_ allow_changes cors_origin")
def serve(
    index: IndexOption = "default",
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen: an address of this machine in the home network, or 0.0.0.0 for all of them; whoever "
            "is in that network and knows the token gets in.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            show_default=False,
            help="0: any that is free. By default 8642, or the next one that is free.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MMSEARCH_TOKEN", help="What requests must bear; by default a new one each time.", show_default=False
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Let the page take documents out of the index; no file is deleted.")
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Pages of this origin may ask too, with the token; repeatable."),
    ] = None,
    *,
    encoder: DeviceOnly,
) -> None:
    """Shows an index as a page in the browser, and answers programs in JSON, on this machine alone, until Ctrl-C.

    The address that is printed has a token in it, without which nothing is answered. With --host the page is for other
    devices too: a QR code of the address is shown for their cameras.
    """
    from mmsearch.api import Index
    from mmsearch.server.run import PORT, check_server, is_loopback, qr_code
    from mmsearch.server.run import serve as run

    check_server()  # before an index is asked for: without the extra, having one does not help

    def started(address: str) -> None:
        if port is None and f":{PORT}/" not in address:
            print(f"port {PORT} is taken, so this one listens at another", file=sys.stderr)
        if not is_loopback(host) and sys.stderr.isatty():
            print(qr_code(address), file=sys.stderr)
        print(address, flush=True)
        if open_:
            typer.launch(address)

    with Index.open(index, options=replace(encoder, single_texts=True)) as opened:
        run(opened, port, token, started, host=host, allow_changes=allow_changes, cors_origins=cors_origin or ())


# How the words of a query stand among options: ``-cat`` leaves cats out, ``--rerank`` may have a name or none

_SHORT_OPTIONS = re.compile("-0?(k[0-9]*)?")
"""``-0``, ``-k``, ``-k5`` and both in one: whatever else has one dash and more than a letter is a word."""
_KEPT = "\ue000"
"""Stands before a word that looks like an option, while click reads; a character that Unicode gives no meaning."""


class QueryCommand(TyperCommand):
    """`query` and `explain`. ``-word`` is a word to leave out, not an option; ``--rerank`` may stand without a name:
    what follows it is one only if it can be.

    An argument is a word of the query if it has one dash and then more than one character, unless it is made of the
    options ``-k`` and ``-0``, or is the value of the option before it. What is a long option but for its second dash
    (``-json``) is an error, and so is an unknown one with two.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        if "--rerank" in args:  # seldom, and it costs an import
            args = _with_reranker(args)
        rest = super().parse_args(ctx, self._with_words(args))
        for parameter in self.params:
            if parameter.param_type_name == "argument" and parameter.name is not None:
                ctx.params[parameter.name] = _as_given(ctx.params[parameter.name])
        return rest

    def _with_words(self, args: list[str]) -> list[str]:
        options = [parameter for parameter in self.params if parameter.param_type_name == "option"]
        names = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        taking = {name for option in options if not getattr(option, "is_flag", False) for name in option.opts}
        given: list[str] = []
        for place, word in enumerate(args):
            if word == "--":
                return [*given, *(_KEPT + arg if arg.startswith(_KEPT) else arg for arg in args[place:])]
            is_value = place > 0 and args[place - 1] in taking
            if word.startswith(_KEPT) and not is_value:
                word = _KEPT + word
            if is_value or len(word) < 3 or word[0] != "-" or word[1] == "-" or _SHORT_OPTIONS.fullmatch(word):
                given.append(word)
                continue
            if f"-{word}" in names:
                raise UsageError(
                    f"there is no option {word}: did you mean -{word}? To leave out the word, put it in quotes of its "
                    f"own: '-\"{word[1:]}\"'"
                )
            given.append(_KEPT + word)
        return given


def _with_reranker(args: list[str]) -> list[str]:
    from mmsearch.models.rerankers.registry import looks_like_a_name

    given: list[str] = []
    for place, word in enumerate(args):
        following = args[place + 1] if place + 1 < len(args) else ""
        if word == "--":
            return [*given, *args[place:]]
        given.append("--rerank=builtin" if word == "--rerank" and not looks_like_a_name(following) else word)
    return given


def _as_given(value: Any) -> Any:
    if isinstance(value, str):
        return value.removeprefix(_KEPT)
    if isinstance(value, Path):
        return Path(str(value).removeprefix(_KEPT))
    if isinstance(value, (list, tuple)):
        return type(value)(_as_given(each) for each in value)
    return value


class ServeCommand(NeedsExtra):
    """`serve`."""

    extra = "serve"


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command(short_help="Find by words, by images, or both", cls=QueryCommand)(query)
    app.command(short_help="Show why a file matches a query", cls=QueryCommand)(explain)
    app.command(short_help="Search in the browser, on this machine alone", cls=ServeCommand)(serve)

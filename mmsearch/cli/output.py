"""What the command line prints: tables for people, lines for pipes, JSON Lines for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from mmsearch.core.errors import UsageError
from mmsearch.core.types import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmsearch.core.types import Hit, Report, Skip


def fail(message: str, code: int = 2) -> NoReturn:
    """Ends the program with one line on what is wrong."""
    print(f"mmsearch: {message}", file=sys.stderr)
    sys.exit(code)


def print_report(report: Report, place: Any, *, as_json: bool) -> None:
    """What a run of indexing did to the index at ``place``."""
    if as_json:
        print_json(
            {
                "indexed": report.indexed,
                "unchanged": report.unchanged,
                "updated": report.updated,
                "removed": report.removed,
                "absent": report.absent,
                "absent_at": list(report.absent_at),
                "back": report.back,
                "skipped": [{"path": skip.path, "reason": skip.reason} for skip in report.skipped],
                "segments": report.segments,
                "interrupted": report.interrupted,
                "text_read": report.text_read,
                "text_unread": [{"path": skip.path, "reason": skip.reason} for skip in report.text_unread],
                "subtitled": report.subtitled,
                "recognised": report.recognised,
                "unheard": [{"path": skip.path, "reason": skip.reason} for skip in report.unheard],
                "sounding": report.sounding,
                "unsounded": [{"path": skip.path, "reason": skip.reason} for skip in report.unsounded],
                "seconds": dict(report.seconds),
                "limited_by": report.limited_by,
            }
        )
        return
    seconds = report.seconds.get("total", 0.0)
    print(
        f"{report.indexed:,} indexed, {report.updated:,} updated, {report.unchanged:,} unchanged, "
        f"{report.removed:,} removed, {len(report.skipped):,} skipped in {seconds:.1f} s"
    )
    print(f"index  {place}")
    if report.text_read:
        print(f"text read in {count_of(report.text_read, 'picture or video', 'pictures and videos')}")
    if report.subtitled:
        print(f"subtitles read of {count_of(report.subtitled, 'video or recording', 'videos and recordings')}")
    if report.recognised:
        print(f"speech recognised in {count_of(report.recognised, 'video or recording', 'videos and recordings')}")
    if report.sounding:
        print(f"sounds encoded of {count_of(report.sounding, 'video or recording', 'videos and recordings')}")
    if report.back:
        print(f"there again: {count_of(report.back, 'document')} that had been absent")
    if report.absent:
        print_absent(report)
    print_reasons("skipped", report.skipped)
    print_reasons("no text read in", report.text_unread)
    print_reasons("not understood", report.unheard)
    print_reasons("no sounds read of", report.unsounded)


def print_absent(report: Report, each: int = 3) -> None:
    """One line of warning on what vanished, and how to say that it is meant."""
    places = ", ".join(map(printable, report.absent_at[:each])) + (" …" if len(report.absent_at) > each else "")
    print(
        f"warning: {count_of(report.absent, 'document')} at {places} {'is' if report.absent == 1 else 'are'} not there "
        "now: kept with their vectors and left out of results until the place is back; if they were deleted, confirm "
        "with `mmsearch index --forget-missing` or `mmsearch remove PATH`",
        file=sys.stderr,
    )


def print_reasons(what: str, skipped: Sequence[Skip], each: int = 5) -> None:
    """Files by reason, the first few of each: `--json` has them all."""
    by_reason: dict[str, list[str]] = {}
    for skip in skipped:
        by_reason.setdefault(skip.reason, []).append(skip.path)
    for reason, paths in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        print(f"{what} {count_of(len(paths), 'file')}: {reason}")
        for path in paths[:each]:
            print(f"    {printable(path)}")
        if len(paths) > each:
            print(f"    … and {len(paths) - each:,} more (all of them with --json)")


def print_suggestion() -> None:
    """One line on what would search better than the built-in encoder."""
    from mmsearch.models.encoders.catalogue import SUGGESTED

    print(
        f"hint: made with the built-in encoder; `mmsearch models pull {SUGGESTED}` gets one that finds more "
        "(1.5 GB, several times slower on a CPU), `mmsearch switch` lets it answer here",
        file=sys.stderr,
    )


Figure = Literal["relevance", "score", "date"]
FEW = 5
"""So many weaker matches are printed for people."""
NOTHING_FOUND = "nothing found"
NOTHING_ALIKE = "nothing in here is like that; the nearest:"
"""Stands above weaker matches where there are no others."""


class Style:
    """How hits are printed."""

    def __init__(
        self, json_: bool, paths: bool, null: bool, *, csv: bool = False, explain: bool = False,
        thumbnails: bool | None = None, every: bool = False,
    ) -> None:  # fmt: skip
        if json_ and (paths or null):
            raise UsageError("--json and --paths/-0 exclude each other")
        if csv and (json_ or paths or null):
            raise UsageError("--csv and --json, --paths or -0 exclude each other")
        self.json, self.paths, self.null, self.csv, self.explain = json_, paths, null, csv, explain
        self.thumbnails, self.every = thumbnails, every

    def of(self, hits: Sequence[Hit]) -> list[Hit]:
        """The hits that are printed: programs get all of them, people only a few of the weaker matches."""
        if self.json or self.csv or self.every:
            return list(hits)
        weaker = [hit for hit in hits if not hit.match]
        return [hit for hit in hits if hit.match] + weaker[:FEW]


CSV_FIELDS = (
    "rank", "relevance", "score", "path", "modality", "segment", "start_s", "end_s", "best_s", "text", "read", "date",
    "language", "match",
)  # fmt: skip


class Asked(NamedTuple):
    """A query of a batch: its number, its text, and why it found nothing, where that is known."""

    number: int
    text: str
    reason: str | None = None


def print_hits(hits: list[Hit], style: Style, query: Asked | None = None) -> None:
    """Hits, one a line, or as a table on a terminal. ``query``: which one of a batch; one that found nothing is a line
    of its own then.

    In lines, the figure of a weaker match has a ``~`` before it.
    """
    hits = style.of(hits)
    if style.json:
        asked = {} if query is None else {"query": query.number, "query_text": query.text}
        for hit in hits:
            print_json(asked | hit.as_json())
        if query is not None and not hits:
            print_json(asked | {"rank": None, "reason": query.reason})
    elif style.csv:
        _print_csv(hits, query)
    elif style.null:
        for hit in hits:
            sys.stdout.write(hit.path + "\0")
    elif style.paths:
        for hit in hits:
            print(hit.path)
    elif sys.stdout.isatty():
        if query is not None:
            nothing = "" if hits else f": {query.reason or NOTHING_FOUND}"
            print(f"{query.number}  {printable(query.text)}{nothing}")
        if hits:
            _print_table(hits, style)
    else:
        prefix, suffix = ("", "") if query is None else (f"{query.number}\t", f"\t{printable(query.text)}")
        figure = figure_of(hits)
        for hit in hits:
            parts = f"\t{parts_of(hit)}" if style.explain else ""
            print(f"{prefix}{hit.rank}\t{'' if hit.match else '~'}{shown(hit, figure)}\t{_where(hit)}{parts}{suffix}")
        if query is not None and not hits:
            print(f"{prefix}-\t-\t{query.reason or NOTHING_FOUND}{suffix}")


def _print_csv(hits: list[Hit], query: Asked | None) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    if query is None or query.number == 1:
        writer.writerow((() if query is None else ("query", "query_text")) + CSV_FIELDS)
    asked = () if query is None else (query.number, query.text)
    for hit in hits:
        fields = hit.as_json()
        writer.writerow([*asked, *(fields[name] for name in CSV_FIELDS)])
    if query is not None and not hits:
        writer.writerow([*asked, *("" for _ in CSV_FIELDS)])


def figure_of(hits: Sequence[Hit]) -> Figure:
    """What is shown beside the hits of a list, the same for all: their relevance if it is known of any."""
    if any(hit.relevance is not None for hit in hits):
        return "relevance"
    return "date" if any(hit.date is not None for hit in hits) else "score"


def shown(hit: Hit, figure: Figure) -> str:
    """That figure of a hit, ``-`` where it has none; the date of one that was listed by date."""
    if hit.date is not None:
        return hit.date[:10]
    value = hit.relevance if figure == "relevance" else hit.score
    return "-" if value is None else f"{value:.3f}"


def parts_of(hit: Hit) -> str:
    """What a score is the sum of: ``similarity 0.312 + hubness -0.080 + words 0.200 = 0.432``."""
    shown = [f"{name} {value:.3f}" for name, value in hit.parts.items() if value or name == "similarity"]
    if not shown:
        return "listed by date"
    read = "" if hit.read is None else f"; read in the picture: {printable(' / '.join(hit.read.splitlines()))}"
    return f"{' + '.join(shown)} = {hit.score:.3f}{read}"


def _print_table(hits: list[Hit], style: Style) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mmsearch.cli.pictures import picture_protocol, print_picture

    protocol = None if style.thumbnails is False else picture_protocol(forced=bool(style.thumbnails))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", justify="right", style="dim")
    figure = figure_of(hits)
    table.add_column(figure, justify="right")
    table.add_column("file", overflow="fold")
    has_matches = bool(hits) and hits[0].match
    for place, hit in enumerate(hits):
        if has_matches and not hit.match and hits[place - 1].match:
            table.add_row("", "", Text("weaker matches", style="dim"))
        line = Text(_where(hit))
        if hit.text and hit.modality != "speech":
            line.append(f"\n{hit.text[:300]}", style="italic")
        if hit.read:
            line.append(f"\n“{printable(' / '.join(hit.read.splitlines()))[:300]}”", style="italic")
        if hit.duplicates:
            line.append(f"  (+{count_of(len(hit.duplicates), 'near-duplicate')})", style="dim")
        if style.explain:
            line.append(f"\n{parts_of(hit)}", style="dim")
        if protocol is not None:
            print_picture(hit, protocol)
            print(f"{hit.rank}  {shown(hit, figure)}  {line.plain}")
        table.add_row(str(hit.rank), shown(hit, figure), line, style=None if hit.match else "dim")
    if protocol is None:
        Console().print(table)


def _where(hit: Hit) -> str:
    """A hit's path, and for a video the moment in it."""
    path = printable(hit.path)
    if hit.start_s is None:
        return path
    said = f"  “{printable(hit.text or '')}”" if hit.modality == "speech" else ""
    said = "  by its sound" if hit.modality == "audio" else said
    return f"{path} {moment_of(hit)}{said}"


def moment_of(hit: Hit) -> str:
    """From when to when, of a hit with a time."""
    moment = _clock(hit.start_s or 0.0)
    if hit.end_s is not None and hit.end_s > (hit.start_s or 0.0):
        moment += f"–{_clock(hit.end_s)}"
    return moment


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:d}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes:d}:{rest:04.1f}"


def printable(path: str) -> str:
    """A path that cannot break the line or the terminal; `--json` and `-0` print it unchanged."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in path)


def print_json(values: dict[str, Any]) -> None:
    """One JSON line; every line says which schema it follows."""
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps({"schema": SCHEMA, **values}, ensure_ascii=ascii_only))


def count_of(number: int, noun: str, nouns: str | None = None) -> str:
    """``1 file``, ``2 files``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {nouns or noun + 's'}"


def bytes_of(number: float) -> str:
    """A size for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"

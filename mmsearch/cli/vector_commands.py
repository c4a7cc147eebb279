"""The commands about vector indexes: which recipes there are, and building the one that pays."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli.options import IndexOption, JsonOption, Only, with_options
from mmsearch.cli.output import bytes_of, print_json
from mmsearch.core.errors import UsageError
from mmsearch.core.options import EncoderOptions
from mmsearch.store.local.options import OptimizeOptions


def recipes(json_: JsonOption = False) -> None:
    """Lists the ways to search vectors: what each is for, and what was measured."""
    from mmsearch.store.local.recipes import list_recipes

    for recipe in list_recipes():
        if json_:
            print_json(asdict(recipe))
            continue
        sizes = f"from {recipe.min_vectors:,} vectors" if recipe.min_vectors else "any size"
        where = ", GPU" if recipe.needs_gpu else ""
        print(f"{recipe.name:12} {recipe.description} ({sizes}{where})")
        for measured in recipe.measured:
            print(
                f"{'':12} {measured.vectors:,} × {measured.dim}: recall@10 {measured.recall_text:.3f} on texts, "
                f"{measured.recall_image:.3f} on images, {measured.p50_ms:.1f} ms, "
                f"{measured.bytes_per_vector:,.0f} bytes a vector, built in {measured.build_s:,.0f} s"
            )
    if not json_:
        print("\n`mmsearch optimize` chooses one and tunes it on this index.")


@with_options("index recipe recall k queries compact device")
def optimize(
    index: IndexOption = "default",
    queries: Annotated[Path | None, typer.Option(help="A file of queries, one a line, to tune on as well.")] = None,
    *,
    options: OptimizeOptions,
    encoder: Annotated[EncoderOptions, Only(("device",))],
    json_: JsonOption = False,
) -> None:
    """Makes searching a large index faster, at a recall that is measured on text queries and shown."""
    from mmsearch.api import Index

    extra = _lines(queries) if queries else []
    show = (lambda _: None) if json_ or not sys.stderr.isatty() else (lambda step: print(f"{step} …", file=sys.stderr))
    with Index.open(index, options=encoder) as opened:
        report = opened.optimize(options, extra_queries=extra, progress=show)
    if json_:
        print_json(asdict(report))
        return
    print(f"{report.recipe}: {report.reason}")
    for kind, tuned in report.tuned.items():
        print(
            f"{kind:6} recall@{tuned.k} {tuned.recall:.3f} ({tuned.recall_low:.3f}–{tuned.recall_high:.3f}), "
            f"p50 {tuned.latency.p50_ms:.1f} ms, p95 {tuned.latency.p95_ms:.1f} ms; exact {tuned.exact.p50_ms:.1f} ms"
        )
    if report.tuned and not report.tuned["text"].reached:
        print(f"the recall of {options.recall:g} was not reached; `--recipe exact` finds everything")
    if report.bytes:
        print(f"size   {bytes_of(report.bytes)} for {report.vectors:,} vectors")
    if report.reclaimed:
        print(f"gave back the space of {report.reclaimed:,} removed vectors")


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the queries {path} cannot be read: {error}") from error


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command(short_help="List the ways to search vectors")(recipes)
    app.command(short_help="Make a large index faster, at a known recall")(optimize)

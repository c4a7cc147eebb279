"""`mmsearch train`: parses, calls `mmsearch.training.run.train`, prints what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli.options import JsonOption, with_options
from mmsearch.cli.output import count_of, print_json
from mmsearch.training.options import (
    BuiltinModelOptions,
    Freezing,
    LossOptions,
    RerankerOptions,
    Stage,
    StepOptions,
    TrainOptions,
    ViewOptions,
)

if TYPE_CHECKING:
    from mmsearch.core.types import Skip
    from mmsearch.training.run import TrainReport, TrainRequest

_LISTED = 20
_CHANCE = 0.05


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("train")(train_command)


@with_options("pairs output model dev images learns")
def train_command(
    pairs: Annotated[
        Path, typer.Argument(help="Table (.tsv, .csv, .jsonl), folder with sidecar files, .tar, or an index.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the new encoder.")],
    model: Annotated[str, typer.Option(help="What to start from; see `mmsearch models`.")] = "builtin",
    dev: Annotated[Path | None, typer.Option(help="Held-out pairs; without it a tenth is kept apart.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder that a table's relative paths start from.")] = None,
    learns: Annotated[
        str, typer.Option(help="heads, last:N, last:N,M (image, text encoder), all, lora:R or lora:R,last:N.")
    ] = "heads",
    held_out: Annotated[float, typer.Option(help="Fraction kept apart where there is no --dev.")] = 0.1,
    negatives: Annotated[
        str | None,
        typer.Option(help="Index whose vectors find the nearest images for --neighbours (4 unless given)."),
    ] = None,
    *,
    loss: LossOptions,
    options: TrainOptions,
    step: StepOptions,
    views: ViewOptions,
    builtin: BuiltinModelOptions,
    reranker: Annotated[
        bool, typer.Option("--reranker", help="Train a reranker after --model instead of its encoders.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    json_: JsonOption = False,
) -> None:
    """Fits an encoder to your own pairs of images and captions; the result works with `index --model DIR`."""
    from mmsearch.training.run import TrainRequest, train

    request = TrainRequest(
        pairs, output, model, dev, images, held_out, Freezing.parse(learns), builtin, negatives=negatives
    )
    if reranker:
        few = RerankerOptions(epochs=options.epochs, seed=options.seed, threads=options.threads)
        _train_reranker(request, few, json_)
        return
    options = replace(options, loss=loss, step=step, views=views)
    if negatives is not None and options.neighbours == 1:  # else they would be for nothing
        options = replace(options, neighbours=4)
    with _bar(hidden=json_) as progress:
        report = train(request, options, resume=resume, progress=progress)
    _print_report(report, json_)


def _train_reranker(request: TrainRequest, options: RerankerOptions, as_json: bool) -> None:
    from mmsearch.training.run import add_reranker

    with _bar(hidden=as_json) as progress:
        result, refused = add_reranker(request, options, progress=progress)
    if as_json:
        print_json({"output": str(request.output), **asdict(result), "refused": [asdict(skip) for skip in refused]})
        return
    print(
        f"text→image R@1 {100 * result.before:.1f} → {100 * result.after:.1f}, the reranker's weight is {result.mix:g}"
    )
    _print_refused(refused, str(request.output))


@contextmanager
def _bar(hidden: bool) -> Iterator[Callable[[Stage], None]]:
    """A line for each stage on the terminal's error stream; nothing where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=hidden or not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: Stage) -> None:
            if stage.name not in tasks:
                tasks[stage.name] = bars.add_task(stage.name, total=stage.total, note="")
            bars.update(tasks[stage.name], completed=stage.done, total=stage.total, note=stage.note)

        yield show


def _print_report(report: TrainReport, as_json: bool) -> None:
    if as_json:
        refused = [asdict(skip) for skip in report.refused]
        print_json(
            {
                "output": str(report.output),
                "images": report.images,
                "captions": report.captions,
                "dev_images": report.dev_images,
                "refused": refused,
                "before": report.before,
                "after": report.after,
                "is_better": report.is_better,
                "p_value": report.p_value,
                "best_epoch": report.fitted.best,
            }
        )
        return
    print(f"trained on {count_of(report.images, 'image')} with {count_of(report.captions, 'caption')}")
    _print_refused(report.refused, str(report.output))
    print(f"held out   {count_of(report.dev_images, 'image')}; best epoch {report.fitted.best}")
    for name, value in report.after.items():
        print(f"{name:26} {100 * report.before[name]:5.1f} → {100 * value:5.1f}")
    verdict = f"The new encoder is {'better' if report.is_better else 'NOT better'} than the one it started from"
    doubt = ", by no more than chance would" if report.is_better and report.p_value > _CHANCE else ""
    print(f"{verdict}{doubt} (p = {report.p_value:.2g}).")
    print(f"Use it {'' if report.is_better else 'all the same '}with: mmsearch index FOLDER --model {report.output}")


def _print_refused(refused: tuple[Skip, ...], output: str) -> None:
    if refused:
        print(f"refused    {count_of(len(refused), 'row')}; all of them: {output}/run/refused.jsonl")
    for skip in refused[:_LISTED]:
        print(f"           {skip.path}: {skip.reason}")

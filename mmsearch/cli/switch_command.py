"""The command that changes the model of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli.bars import progress_bar
from mmsearch.cli.completion import model_names
from mmsearch.cli.options import IndexOption, JsonOption, with_options
from mmsearch.cli.output import count_of, fail, print_json, print_reasons
from mmsearch.core.options import EncoderOptions
from mmsearch.switch.options import SwitchOptions

if TYPE_CHECKING:
    from mmsearch.switch import SwitchReport


@with_options("model index activate")
def switch(
    model: Annotated[
        str, typer.Argument(help="The encoder to search with; see `mmsearch models`.", autocompletion=model_names)
    ],
    index: IndexOption = "default",
    *,
    options: SwitchOptions,
    encoder: EncoderOptions,
    json_: JsonOption = False,
) -> None:
    """Changes the model of an index without a pause: the present one answers until the new one covers everything.

    Run it again after an interruption, it goes on where it was. The vectors of the model before are kept, so switching
    back is quick. Exit code 1: some files could not be read again, so nothing was switched.
    """
    from mmsearch.api import Index

    with (
        Index.open(index, options=encoder) as opened,
        progress_bar(hidden=json_) as progress,
    ):
        report = opened.switch(model, options=options, progress=progress)
    _print(report, as_json=json_)
    if report.interrupted:
        fail("interrupted: what was complete is saved; run the same command again to go on", code=130)
    if not report.answers and options.activate:
        raise typer.Exit(1)


def _print(report: SwitchReport, *, as_json: bool) -> None:
    counts = report.coverage
    if as_json:
        print_json(
            {
                "model": report.model,
                "before": report.before,
                "answers": report.answers,
                "documents": counts.documents,
                "covered": counts.covered,
                "coverage": counts.share,
                "left_out": [{"path": skip.path, "reason": skip.reason} for skip in report.left_out],
                "segments": report.segments,
                "interrupted": report.interrupted,
                "dropped": list(report.dropped),
                "seconds": round(report.seconds, 3),
            }
        )
        return
    print(
        f"{report.model}: {counts.covered:,} of {count_of(counts.documents, 'document')} covered, "
        f"{count_of(report.segments, 'vector')} made in {report.seconds:.1f} s"
    )
    print_reasons("left out", report.left_out)
    if report.answers:
        print(f"{report.model} answers" + ("" if report.before == report.model else f"; before, {report.before} did"))
    elif report.left_out:
        print(f"{report.before} goes on answering; make these files readable, or switch without them: --leave-out")
    for name in report.dropped:
        print(f"gave back the space of {name}")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(short_help="Change the model of an index, without a pause")(switch)

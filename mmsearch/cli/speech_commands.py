"""`mmsearch transcribe`, and questions that are spoken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsearch.cli.options import IndexOption, JsonOption
from mmsearch.cli.output import print_json
from mmsearch.core.errors import MediaError, UsageError

SECONDS = 8
"""That are recorded from a microphone."""


def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Videos and recordings.", show_default=False)],
    index: IndexOption = "default",
    form: Annotated[str, typer.Option("--format", help="srt, vtt, txt or jsonl.")] = "srt",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder; by default beside each file.")
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Recognise again what the index has already.")] = False,
    speech_model: Annotated[
        str | None, typer.Option(help="What recognises speech; see `index --speech-model`.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    json_: JsonOption = False,
) -> None:
    """Writes what is said in videos and recordings to files: from the index, else recognised anew
    (mmsearch[speech]).
    """
    from mmsearch.media.sound.transcripts import WRITERS

    if form not in WRITERS:
        raise UsageError(f"--format is {form}; expected {', '.join(WRITERS)}")
    for file in files:
        if not file.is_file():
            raise UsageError(f"there is no file {file}: check the spelling")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    recogniser: Any = None
    failed = 0
    for file in files:
        place = (output or file.parent) / f"{file.stem}.{form}"
        if place.exists() and not force:
            raise UsageError(f"{place} is there already: overwrite it with --force, or choose a folder with --output")
        cues = [] if anew else _known(index, file)
        source = "index"
        if not cues:
            from mmsearch.models.speech import open_recogniser
            from mmsearch.pipeline.speech import recognised

            recogniser = recogniser or open_recogniser(speech_model)
            source = recogniser.name
            try:
                cues = recognised(file, recogniser)
            except MediaError as error:
                failed += 1
                print(f"mmsearch: {file}: {error}", file=sys.stderr)
                continue
        try:
            place.write_text(WRITERS[form](cues), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{place} cannot be written: {error.strerror}") from error
        if json_:
            print_json({"file": str(file), "written": str(place), "passages": len(cues), "from": source})
        else:
            print(f"{place}: {len(cues)} passages, from {'the index' if source == 'index' else source}")
    if failed:
        raise typer.Exit(2)


def _known(index: str, file: Path) -> list[Any]:
    from mmsearch.api import Index
    from mmsearch.core.home import locate_index
    from mmsearch.store.local.directory import IndexDirectory

    if not IndexDirectory.exists(locate_index(index)):
        return []
    with Index.open(index) as opened:
        return opened.transcript(file)


def understood(voice: str, model: str | None = None) -> str:
    """The words of a question in a sound file, or, for ``-``, in what the microphone hears for some seconds.

    Raises:
        UsageError: it cannot be read or recorded, or nothing was understood.
    """
    from mmsearch.models.speech import open_recogniser
    from mmsearch.pipeline.speech import question_of, recorded

    recogniser = open_recogniser(model)
    if voice == "-":
        print(f"mmsearch: listening for {SECONDS} seconds …", file=sys.stderr)
        text = question_of(iter([recorded(SECONDS)]), recogniser)
    else:
        from mmsearch.media.sound.containers import sound_of

        path = Path(voice).expanduser()
        if not path.is_file():
            raise UsageError(f"there is no file {voice}: check the spelling")
        try:
            text = question_of(sound_of(path), recogniser)
        except MediaError as error:
            raise UsageError(f"{voice}: {error}") from error
    if not text:
        raise UsageError("nothing was understood: nobody speaks there, or too softly")
    return text


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(short_help="Write what is said in videos and recordings to files")(transcribe)

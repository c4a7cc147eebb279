"""The commands that fill an index and look after it: `index`, `import`, `remove`, `status`, `verify`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsearch.cli.bars import progress_bar
from mmsearch.cli.completion import model_names, reranker_names, speech_model_names
from mmsearch.cli.options import IndexOption, JsonOption, Only, with_options
from mmsearch.cli.output import bytes_of, count_of, fail, print_json, print_report, print_suggestion, printable
from mmsearch.core.errors import UsageError
from mmsearch.core.modalities import MODALITIES, has_pictures, spec_of
from mmsearch.core.options import EncoderOptions
from mmsearch.core.shortage import is_of_machine
from mmsearch.ingest.options import ImportOptions, IngestOptions
from mmsearch.sources.base import WalkRules
from mmsearch.sources.remote import is_remote, located

if TYPE_CHECKING:
    from mmsearch.core.types import Report
    from mmsearch.verify import Difference, Verdict


@with_options(
    "paths index model device precision batch_size exclude hidden max_megapixels frame_interval_s ocr speech "
    "speech_model sounds sound_model keep_tokens reranker memory_mb engine forget_missing watch compile"
)
def index_command(
    paths: Annotated[list[Path], typer.Argument(help="Folders or files to index.", show_default=False)],
    index: IndexOption = "default",
    model: Annotated[
        str | None, typer.Option(help="Encoder of a new index; see `mmsearch models`.", autocompletion=model_names)
    ] = None,
    ocr: Annotated[
        bool, typer.Option("--ocr", help="Also read the text in pictures and video frames (needs mmsearch[ocr]).")
    ] = False,
    speech: Annotated[
        bool,
        typer.Option("--speech", help="Also recognise what is said in videos and recordings (needs mmsearch[speech])."),
    ] = False,
    speech_model: Annotated[
        str | None,
        typer.Option(
            help="What --speech recognises with: whisper-base, whisper-small … or a directory.",
            autocompletion=speech_model_names,
        ),
    ] = None,
    sounds: Annotated[
        bool,
        typer.Option("--sounds", help="Also let what sounds in videos and recordings be found: rain, applause, a dog."),
    ] = False,
    sound_model: Annotated[
        str | None,
        typer.Option(help="What --sounds encodes with: hf:laion/clap-htsat-unfused, another CLAP, or a directory."),
    ] = None,
    keep_tokens: Annotated[
        bool | None,
        typer.Option(
            "--keep-tokens/--no-keep-tokens",
            help="Also keep what a reranker needs of each picture, so that --rerank opens none; --no- drops it again.",
        ),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            help="Whose tokens --keep-tokens keeps, by default the encoder's own; see `query --rerank`.",
            autocompletion=reranker_names,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on: keep the index up to date until Ctrl-C.")] = False,
    *,
    encoder: EncoderOptions,
    rules: WalkRules,
    options: IngestOptions,
    json_: JsonOption = False,
) -> None:
    """Indexes folders of photos, videos, recordings and texts, or brings their index up to date."""
    from mmsearch.api import Index
    from mmsearch.media.ocr import open_text_reader
    from mmsearch.store.base import no_folders
    from mmsearch.store.local.directory import IndexDirectory
    from mmsearch.store.registry import family_of, local_path

    if speech_model is not None and not speech:
        raise UsageError("--speech-model says what --speech recognises with: give both")
    if sound_model is not None and not sounds:
        raise UsageError("--sound-model says what --sounds encodes with: give both")
    options = replace(
        options,
        rules=rules,
        sounds=_sound_encoder(sound_model, index, encoder) if sounds else False,
        speech=_recogniser(speech_model, encoder) if speech else False,
        ocr=open_text_reader() if ocr else False,  # before an index is made
        keep_tokens=(reranker or "builtin") if keep_tokens else None,
    )
    if reranker is not None and not keep_tokens:
        raise UsageError("--reranker says whose tokens --keep-tokens keeps: give both")
    if options.forget_missing and watch:
        raise UsageError("--forget-missing confirms what is missing now, --watch goes on: give one of them")
    place = local_path(index)
    if place is None and watch:
        raise UsageError(
            f"--watch is for index directories, and {index} is another store: run the command again instead"
        )
    if place is not None and not IndexDirectory.exists(place):  # one that exists may know a path that is not there now
        _check_paths(paths)
    if place is None and not family_of(index).takes_folders:  # before one is made
        raise no_folders(str(index))
    with Index.open(index, create=True, encoder=model, options=encoder) as opened:
        if keep_tokens is False and place is not None:
            opened.drop_tokens()
        if watch:
            opened.watch(paths, lambda made: print_report(made, opened.path, as_json=json_), options=options)
            return
        with progress_bar(hidden=json_) as progress:
            report = opened.add(paths, options=options, progress=progress)
        print_report(report, opened.place, as_json=json_)
        if not any((report.indexed, report.updated, report.unchanged, report.removed, report.skipped, report.absent)):
            _say_empty(paths)
        is_new = report.indexed == opened.status()["vectors"] > 0
        if is_new and opened.encoder_spec.name == "builtin" and not json_:
            print_suggestion()
    _fail_if_incomplete(report)


def _say_empty(paths: Sequence[Path]) -> None:
    """That there was nothing to index, which a mistaken path or rule may be the reason of."""
    places = f"{printable(str(paths[0]))} holds" if len(paths) == 1 else "these folders hold"
    print(
        f"mmsearch: {places} no photo, video, recording or text that mmsearch reads; hidden files and what a "
        ".mmsearchignore or --exclude names are left out",
        file=sys.stderr,
    )


def _fail_if_incomplete(report: Report) -> None:
    if report.interrupted:
        fail("interrupted: what was complete is saved; run the same command again to go on", code=130)
    lacking = [skip.reason for skip in report.skipped if is_of_machine(skip.reason)]
    if lacking:
        fail(
            f"{count_of(len(lacking), 'file')} could not be read because {lacking[0].partition(':')[0]}: what was "
            "complete is saved; put that right and run the same command again"
        )


def _recogniser(name: str | None, encoder: EncoderOptions) -> Any:
    from mmsearch.models.speech import open_recogniser

    return open_recogniser(name, device=encoder.device, threads=encoder.threads)


def _sound_encoder(name: str | None, index: str, options: EncoderOptions) -> Any:
    """Before an index is made; where there is one, by default the encoder whose sounds it has."""
    from mmsearch.models.sounds import SUGGESTED_SOUNDS, open_sound_encoder
    from mmsearch.store.local.catalogue.sounds import sound_encoder
    from mmsearch.store.local.directory import IndexDirectory
    from mmsearch.store.registry import local_path

    place = local_path(index)
    if name is None and place is not None and IndexDirectory.exists(place):
        with contextlib.closing(IndexDirectory.open(place)) as directory:
            known = sound_encoder(directory.catalogue)
            name = None if known is None else known.name
    return open_sound_encoder(name or SUGGESTED_SOUNDS, options)


def status(index: IndexOption = "default", json_: JsonOption = False) -> None:
    """Shows what an index holds and which encoder made it."""
    from mmsearch.api import Index

    with Index.open(index) as opened:
        values = opened.status()
    if json_:
        print_json(values)
        return
    documents = values["documents"]
    print(f"index      {values['path']}")
    kinds = [
        f"{documents[name]:,} {spec_of(name).plural}"
        for name in MODALITIES
        if name in documents and not spec_of(name).is_inside
    ]
    print(f"documents  {', '.join(kinds)}")
    if documents["absent"]:
        print(f"absent     {documents['absent']:,} of them are not there now (`mmsearch index` brings them back)")
    unused = f", {documents['dead_rows']:,} of them unused" if documents["dead_rows"] else ""
    print(f"segments   {documents['segments']:,} ({values['vectors']:,} vectors{unused})")
    print(f"skipped    {count_of(documents['skipped'], 'unreadable file')}")
    if values["ocr"]["read"]:
        print(f"text       {_text_line(values)}")
    if any(values.get("speech", {}).get(name) for name in ("passages", "recognised")):
        print(f"speech     {_speech_line(values['speech'])}")
    if sounds := values.get("sounds"):
        failed = f", {sounds['failed']:,} could not be read" if sounds["failed"] else ""
        heard = f"{sounds['heard']:,} of {sounds['of']:,} videos and recordings"
        print(f"sounds     {count_of(sounds['windows'], 'window')} in {heard}{failed} ({sounds['encoder']})")
    print(f"encoder    {values['encoder']}")
    for model in values["models"]:
        if not model["answers"] or model["left_out"]:
            print(f"model      {_model_line(model, values['model'])}")
    print(f"search     {_search_line(values)}")
    if values["tokens"] is not None:
        print(f"tokens     {_tokens_line(values['tokens'])}")
    if values["bytes"] is not None:
        print(f"size       {bytes_of(values['bytes'])}")
    for root in values["roots"]:
        print(f"folder     {root}")


def _tokens_line(tokens: dict[str, Any]) -> str:
    size = f"{bytes_of(tokens['bytes'])}, {tokens['bytes_per_image']:,} bytes each"
    of = f"{tokens['images']:,} of {tokens['of']:,} pictures and frames"
    return f"of {of} for the reranker {tokens['reranker']} ({size})"


def remove(
    paths: Annotated[list[Path], typer.Argument(help="Indexed folders or files.", show_default=False)],
    index: IndexOption = "default",
    json_: JsonOption = False,
) -> None:
    """Drops folders or files from the index; no file on the disk is touched."""
    from mmsearch.api import Index

    with Index.open(index) as opened:
        removed = opened.remove(paths)
    if json_:
        print_json({"removed": removed})
    else:
        print(f"removed {count_of(removed, 'document')} from the index")


@with_options("folder parquet model index")
def import_command(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder that `clip-retrieval inference` wrote.", show_default=False)
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Instead: files that `mmsearch export` wrote.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model that made the vectors; see `mmsearch models`.",
            autocompletion=model_names,
            show_default=False,
        ),
    ] = None,
    index: IndexOption = "default",
    *,
    options: ImportOptions,
    encoder: Annotated[EncoderOptions, Only(("device",))],
    json_: JsonOption = False,
) -> None:
    """Takes in embeddings that clip-retrieval made (npy and parquet), or what `mmsearch export` wrote, without
    embedding anything again.

    Pictures of clip-retrieval go to a dataset that is called as the folder, captions that have vectors to
    NAME/captions; its files do not say which model made them, so --model must.
    """
    from mmsearch.api import Index
    from mmsearch.ingest.datasets import find_parts
    from mmsearch.ingest.exchange import describe

    if (folder is None) == (parquet is None):
        raise UsageError("give either a folder that clip-retrieval wrote, or --parquet with one of `mmsearch export`")
    exported = None if parquet is None else parquet.expanduser()
    if folder is not None:
        if model is None:
            raise UsageError("say with --model which model made the vectors: `mmsearch models` lists them")
        find_parts(folder.expanduser(), captions=options.captions)  # before an index is made
    elif exported is not None and model is None and (described := describe(exported)) is not None:
        model = described.model
    with Index.open(index, create=True, encoder=model, options=encoder) as opened:
        with progress_bar(hidden=json_) as progress:
            if folder is not None:
                report = opened.import_folder(folder, options=options, progress=progress)
            elif exported is not None:
                report = opened.import_parquet(exported, progress=progress)
        print_report(report, opened.place, as_json=json_)
    _fail_if_incomplete(report)


def verify(
    index: IndexOption = "default",
    mend: Annotated[bool, typer.Option("--mend", help="Mend what does not agree; what is right is kept.")] = False,
    read_bytes: Annotated[
        bool, typer.Option("--bytes", help="Read every file again, not only its size and time.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Proves that catalogue, vector file and disk agree; exit code 1 when they do not."""
    from mmsearch.api import Index

    with Index.open(index) as opened, progress_bar(hidden=json_) as progress:
        verdict = opened.verify(mend=mend, read_bytes=read_bytes, progress=progress)
    _print_verdict(verdict, as_json=json_)
    if not verdict.clean:
        raise typer.Exit(1)


_EACH = 10


def _print_verdict(verdict: Verdict, *, as_json: bool) -> None:
    """What was compared, and the differences by kind, the first of each: `--json` has them all."""
    if as_json:
        rows = [_difference_row(difference) for difference in verdict.differences]
        print_json(
            {
                "clean": verdict.clean,
                "documents": verdict.documents,
                "vectors": verdict.vectors,
                "files": verdict.files,
                "differences": rows,
            }
        )
        return
    compared = f"{count_of(verdict.documents, 'document')}, {count_of(verdict.vectors, 'vector')}, "
    compared += f"{count_of(verdict.files, 'file')} compared"
    if verdict.clean:
        print(f"{compared}: all agree")
        return
    print(f"{compared}: {count_of(len(verdict.differences), 'difference')}")
    by_kind: dict[str, list[Difference]] = {}
    for difference in verdict.differences:
        by_kind.setdefault(difference.kind, []).append(difference)
    for kind, differences in by_kind.items():
        print(f"{kind}: {len(differences):,}")
        for difference in differences[:_EACH]:
            print(f"    {printable(difference.where)}: {printable(difference.detail)}")
        if len(differences) > _EACH:
            print(f"    … and {len(differences) - _EACH:,} more (all of them with --json)")
    if any(difference.mendable for difference in verdict.differences):
        print("`mmsearch verify --mend` mends what can be mended")


def _difference_row(difference: Difference) -> dict[str, object]:
    return {
        "kind": difference.kind,
        "part": difference.part,
        "where": difference.where,
        "detail": difference.detail,
        "mendable": difference.mendable,
    }


def _text_line(values: dict[str, Any]) -> str:
    """In how many pictures and videos text was looked for, and in how many there is some."""
    ocr, documents = values["ocr"], values["documents"]
    failed = f", {ocr['failed']:,} could not be read" if ocr["failed"] else ""
    pictures = sum(documents[name] for name in MODALITIES if name in documents and has_pictures(name))
    return f"looked for in {ocr['read']:,} of {pictures:,} images and videos, found in {ocr['with_text']:,}{failed}"


def _speech_line(speech: dict[str, Any]) -> str:
    """In how many videos and recordings something is said."""
    failed = f", {speech['failed']:,} could not be read" if speech["failed"] else ""
    of = f"{speech['with_speech']:,} of {speech['of']:,} videos and recordings ({speech['recognised']:,} recognised)"
    return f"{count_of(speech['passages'], 'passage')} in {of}{failed}"


def _model_line(model: dict[str, Any], answering: str) -> str:
    """A model that is filled in beside the one that answers, was left behind, or had to leave something out."""
    percent = int(1000 * model["coverage"]) / 10  # rounded down: 100 % is all of it
    covered = f"covers {model['covered']:,} of {count_of(model['documents'], 'document')} ({percent:g} %)"
    left_out = f", {model['left_out']:,} could not be read" if model["left_out"] else ""
    if model["model"] == answering and not model["answers"]:
        # The name opens the weights that answer now, so no command brings these back.
        end = f"no longer in use, `mmsearch switch {answering} --drop-others` gives back its space"
        return f"{model['encoder']} {covered}{left_out}; {end}"
    end = "answers" if model["answers"] else f"`mmsearch switch {model['model']}` lets it answer"
    return f"{model['model']} {covered}{left_out}; {end}"


def _search_line(values: dict[str, Any]) -> str:
    """Which vector search answers, and what is known of its recall."""
    built = values["vector_index"]
    if built is None:
        return "exact (finds everything)" if values["recipe"] == "exact" else str(values["recipe"])
    from mmsearch.store.local.optimize import describe_tuned

    lines = [f"{built['recipe']} over {built['rows']:,} vectors, the others exactly"]
    lines += [f"{'':11}{kind} queries: {describe_tuned(tuned)}" for kind, tuned in built["tuned"].items()]
    return "\n".join(lines)


def _check_paths(paths: list[Path]) -> None:
    """Before an index is made: a mistyped folder must not leave an empty one behind."""
    for path in paths:
        if not is_remote(located(path)) and not os.path.lexists(located(path).expanduser()):
            raise UsageError(f"there is no file or folder {path}: check the spelling")


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command("index", short_help="Index folders, or bring their index up to date")(index_command)
    app.command(short_help="Show what an index holds")(status)
    app.command(short_help="Drop folders or files from an index")(remove)
    app.command("import", short_help="Take in embeddings made elsewhere")(import_command)
    app.command(short_help="Prove that index and disk agree; mend")(verify)

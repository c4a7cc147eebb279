"""The commands: each parses its options, calls one function and prints what it returned."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsearch import __version__
from mmsearch.cli.bars import download_bar, progress_bar
from mmsearch.cli.output import Style, bytes_of, count_of, fail, print_hits, print_json, print_report, print_suggestion
from mmsearch.errors import UsageError

app = typer.Typer(
    name="mmsearch",
    help="Search your own photos, videos and texts by meaning. Everything stays on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Lists the encoders to choose from; `models pull NAME` fetches one.")
app.add_typer(models_app, name="models", invoke_without_command=True)

IndexOption = Annotated[
    str,
    typer.Option("--index", help="Name of an index in the data directory, or a path to one.", envvar="MMSEARCH_INDEX"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON Lines instead of text.")]
DeviceOption = Annotated[str, typer.Option(help="Where open_clip models run: auto, cpu, cuda or mps.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mmsearch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("index")
def index_command(
    paths: Annotated[list[Path], typer.Argument(help="Folders or files to index.", show_default=False)],
    index: IndexOption = "default",
    model: Annotated[str | None, typer.Option(help="Encoder of a new index; see `mmsearch models`.")] = None,
    device: DeviceOption = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images in one batch of the encoder.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out what matches (gitignore syntax); repeatable.")
    ] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also index hidden files and folders.")] = False,
    max_megapixels: Annotated[float, typer.Option(min=0.1, help="Refuse larger images.")] = 89.0,
    frame_interval: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks at a video, at most.")
    ] = 2.0,
    compile_: Annotated[bool, typer.Option("--compile", help="Use torch.compile (open_clip models).")] = False,
    json_: JsonOption = False,
) -> None:
    """Indexes folders of photos, videos and texts, or brings their index up to date."""
    from mmsearch.api import Index
    from mmsearch.files import WalkRules
    from mmsearch.ingest import IngestOptions

    options = IngestOptions(
        rules=WalkRules(hidden=hidden, exclude=tuple(exclude or ())),
        max_megapixels=max_megapixels,
        frame_interval_s=frame_interval,
    )
    _check_paths(paths)
    with Index.open(
        index, create=True, encoder=model, options=_encoder_options(device, batch_size, compile_)
    ) as opened:
        with progress_bar(hidden=json_) as progress:
            report = opened.add(paths, options=options, progress=progress)
        print_report(report, opened.path, as_json=json_)
        is_new = report.indexed == opened.status()["vectors"] > 0
        if is_new and opened.encoder_spec.name == "builtin" and not json_:
            print_suggestion()
    if report.interrupted:
        fail("interrupted: what was complete is saved; run the same command again to go on", code=130)


@app.command()
def query(
    text: Annotated[str | None, typer.Argument(help="What to look for, in words.", show_default=False)] = None,
    image: Annotated[Path | None, typer.Option(help="Look for what resembles this image.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many answers.")] = 10,
    index: IndexOption = "default",
    modality: Annotated[list[str] | None, typer.Option(help="Only image, video or text; repeatable.")] = None,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print paths only.")] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="Print paths only, each followed by a NUL byte.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Show weak answers too: all k.")] = False,
) -> None:
    """Finds images and video moments (or texts, with --modality text) by words or by an image."""
    from mmsearch.api import Index

    with Index.open(index, options=_encoder_options(device)) as opened:
        hits = opened.search(text, image=image, k=k, modality=modality)  # type: ignore[arg-type]
    print_hits(hits, Style(json_, paths, null))
    if not hits:
        if not json_:
            print("mmsearch: nothing found: the index holds nothing of that kind", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
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
    print(f"documents  {documents['image']:,} images, {documents['video']:,} videos, {documents['text']:,} texts")
    unused = f", {documents['dead_rows']:,} of them unused" if documents["dead_rows"] else ""
    print(f"segments   {documents['segments']:,} ({values['vectors']:,} vectors{unused})")
    print(f"skipped    {documents['skipped']:,} unreadable files")
    print(f"encoder    {values['encoder']}")
    print(f"search     {values['recipe']}")
    print(f"size       {bytes_of(values['bytes'])}")
    for root in values["roots"]:
        print(f"folder     {root}")


@app.command()
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


@models_app.callback()
def list_models_command(context: typer.Context, json_: JsonOption = False) -> None:
    """Lists recommended encoders: quality, size, speed, licence, and which are on this machine."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from mmsearch.encoders.models import list_models
    from mmsearch.home import default_model

    default = default_model()
    if json_:
        for row in list_models():
            print_json({**asdict(row), "speed": row.speed, "default": row.name == default})
        return
    print(f"  {'model':32} {'here':4} {'COCO':>5} {'Flickr30k':>9} {'size':>8} {'on CPU':7} licence; figures from")
    for row in list_models():
        mark = "*" if row.name == default else " "
        size = f"{row.download_mb} MB" if row.download_mb else "-"
        print(
            f"{mark} {row.name:32} {'yes' if row.present else '-':4} {_figure(row.coco_recall1):>5} "
            f"{_figure(row.flickr30k_recall1):>9} {size:>8} {row.speed:7} {row.licence}; {row.source}"
        )
    print("\nCOCO, Flickr30k: text→image recall@1 in percent, published. *: new indexes use it.")
    print("`mmsearch models pull NAME` fetches one; any other model of open_clip works too, by its name.")


@models_app.command()
def pull(name: Annotated[str, typer.Argument(help="A name from `mmsearch models`, or hf-hub:ORG/NAME.")]) -> None:
    """Fetches a model from its hub; new indexes will use it. The only command that opens a connection."""
    from mmsearch.encoders.models import canonical_name
    from mmsearch.encoders.pull import pull_model
    from mmsearch.home import set_default_model

    with download_bar() as show:
        pull_model(name, show)
    set_default_model(canonical_name(name))
    print(f"{name} is on this machine; new indexes will use it")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _check_paths(paths: list[Path]) -> None:
    """Before an index is made: a mistyped folder must not leave an empty one behind."""
    for path in paths:
        if not path.expanduser().exists():
            raise UsageError(f"there is no file or folder {path}: check the spelling")


def _encoder_options(device: str, batch_size: int | None = None, compile_: bool = False) -> Any:
    from mmsearch.encoders.base import EncoderOptions

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise UsageError(f"no such device: {device}; there are auto, cpu, cuda and mps")
    return EncoderOptions(device=device, batch_size=batch_size, compile=compile_)  # type: ignore[arg-type]

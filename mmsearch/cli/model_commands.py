"""The commands about encoders: `models` and `models pull`."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsearch.cli.bars import download_bar
from mmsearch.cli.options import JsonOption, model_names
from mmsearch.cli.output import print_json


def list_models_command(context: typer.Context, json_: JsonOption = False) -> None:
    """Lists recommended encoders: quality, size, speed, licence, and which are on this machine."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from mmsearch.core.home import default_model
    from mmsearch.models.encoders.catalogue import list_models

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
    print(
        "`mmsearch models pull NAME` fetches one; any other model of open_clip works too, by its name, dual encoders of"
    )
    print("Hugging Face transformers by hf:ORG/NAME, and a class of your own by module:Class.")


def pull(
    name: Annotated[
        str,
        typer.Argument(
            help="A name from `mmsearch models`, hf:ORG/NAME, hf-hub:ORG/NAME (open_clip), or whisper-SIZE (speech).",
            autocompletion=model_names,
        ),
    ],
) -> None:
    """Fetches a model from its hub; new indexes will use it. The only command that opens a connection."""
    from mmsearch.models.speech.registry import canonical_speech_name, is_speech_model, pull_speech_model

    if is_speech_model(canonical_speech_name(name)):
        with download_bar() as show:
            pull_speech_model(canonical_speech_name(name), show)
        print(f"{name} is on this machine; `mmsearch index --speech` will use it")
        return
    from mmsearch.core.home import set_default_model
    from mmsearch.models.encoders.pull import pull_model
    from mmsearch.models.encoders.registry import canonical_name

    with download_bar() as show:
        pull_model(name, show)
    set_default_model(canonical_name(name))
    print(f"{name} is on this machine; new indexes will use it")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    models = typer.Typer(help="Lists the encoders to choose from; `models pull NAME` fetches one.")
    models.callback()(list_models_command)
    models.command()(pull)
    app.add_typer(models, name="models", invoke_without_command=True)

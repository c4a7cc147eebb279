"""The commands about encoders: `models`, `models pull` and `models test`."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsearch.cli.bars import download_bar
from mmsearch.cli.completion import model_names
from mmsearch.cli.options import IndexOption, JsonOption
from mmsearch.cli.output import fail, print_json


def list_models_command(context: typer.Context, index: IndexOption = "default", json_: JsonOption = False) -> None:
    """Lists recommended encoders: languages, quality, size, images a second here, licence, and which are here."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from mmsearch.core.home import default_model
    from mmsearch.models.encoders.catalogue import list_models
    from mmsearch.models.encoders.rates import rate_of

    default, photos = default_model(), _photos(index)
    rows = [(row, rate_of(row)) for row in list_models()]
    if json_:
        for row, rate in rows:
            speed = {"images_per_s": round(rate.images_per_s, 2), "measured": rate.measured}
            print_json({**asdict(row), "speed": row.speed, **speed, "default": row.name == default})
        return
    print(
        f"  {'model':32} {'here':4} {'languages':14} {'COCO':>5} {'Flickr30k':>9} {'size':>8} {'images/s':>9} "
        f"{f'{photos:,} photos':24} licence; figures from"
    )
    for row, rate in rows:
        mark = "*" if row.name == default else " "
        size = f"{row.download_mb} MB" if row.download_mb else "ships"
        speed_here = f"{'' if rate.measured else '~'}{rate.images_per_s:.3g}"
        print(
            f"{mark} {row.name:32} {'yes' if row.present else '-':4} {row.languages:14} {_figure(row.coco_recall1):>5} "
            f"{_figure(row.flickr30k_recall1):>9} {size:>8} {speed_here:>9} "
            f"{rate.time_for(photos).partition(': ')[2]:24} {row.licence}; {row.source}"
        )
    print("\nCOCO, Flickr30k: text→image recall@1 in percent, published. *: new indexes use it.")
    print("images/s: on this machine's CPU, as measured or (~) estimated; a GPU is faster.")
    print(f"`mmsearch models pull NAME` fetches one: {_suggestions()};")
    print("`mmsearch models test NAME` tries it. Any other model of open_clip works too, by its name, dual encoders of")
    print("Hugging Face transformers by hf:ORG/NAME, and a class of your own by module:Class.")


def pull(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A name from `mmsearch models`, hf:ORG/NAME, hf-hub:ORG/NAME (open_clip), whisper-SIZE (speech).",
            autocompletion=model_names,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Fetches a model from its hub; new indexes will use it. The only command that opens a connection."""
    from mmsearch.models.speech.registry import canonical_speech_name, is_speech_model, pull_speech_model

    if name is None:
        fail(f"name a model: {_suggestions()}; `mmsearch models` lists more")
    if is_speech_model(canonical_speech_name(name)):
        with download_bar() as show:
            pull_speech_model(canonical_speech_name(name), show)
        print(f"{name} is on this machine; `mmsearch index --speech` will use it")
        return
    from mmsearch.core.home import set_default_model
    from mmsearch.models.encoders.pull import pull_model
    from mmsearch.models.encoders.registry import canonical_name
    from mmsearch.models.sounds import is_sound_encoder

    with download_bar() as show:
        pull_model(name, show)
    if is_sound_encoder(name):
        print(f"{name} is on this machine; `mmsearch index --sounds --sound-model {name}` will use it")
        return
    set_default_model(canonical_name(name))
    print(f"{name} is on this machine; new indexes will use it (`mmsearch models test {name}` tries it)")


def test_command(
    name: Annotated[
        str,
        typer.Argument(help="A model that is on this machine, by default the built-in.", autocompletion=model_names),
    ] = "builtin",
    json_: JsonOption = False,
) -> None:
    """Tries a model on drawn shapes: exit 1 where it does not know their colours, as after a broken download."""
    from dataclasses import asdict

    from mmsearch.models.encoders import open_encoder
    from mmsearch.models.encoders.rates import keep_rate
    from mmsearch.models.encoders.trial import try_encoder

    encoder = open_encoder(name)
    trial = try_encoder(encoder)
    keep_rate(name, trial.rate)
    if json_:
        print_json({"model": name, **asdict(trial), "passed": trial.passed})
    else:
        print(
            f"{name}: of {trial.pictures} drawn shapes {trial.colours} colours and {trial.shapes} shapes recognised, "
            f"{trial.rate:.3g} images/s; "
            + ("it answers sensibly" if trial.passed else "it does not answer as a trained model does: fetch it again")
        )
    if not trial.passed:
        raise typer.Exit(1)


def _suggestions() -> str:
    from mmsearch.models.encoders.catalogue import SUGGESTED, SUGGESTED_ENGLISH

    return f"{SUGGESTED_ENGLISH} for English, {SUGGESTED} for many languages"


def _photos(index: str) -> int:
    """Of the index at hand; 5,000 where there is none."""
    from mmsearch.api import Index
    from mmsearch.core.errors import MmsearchError

    try:
        with Index.open(index) as opened:
            photos = int(opened.status()["documents"].get("image", 0))
    except MmsearchError:
        photos = 0
    return photos or 5000


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    models = typer.Typer(help="Lists the encoders to choose from; `pull NAME` fetches one, `test NAME` tries it.")
    models.callback()(list_models_command)
    models.command()(pull)
    models.command("test")(test_command)
    app.add_typer(models, name="models", invoke_without_command=True)

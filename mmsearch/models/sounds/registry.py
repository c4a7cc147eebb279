"""Which encoder of sounds a name means.

hf:ORG/NAME     a CLAP of Hugging Face transformers that was pulled, such as hf:laion/clap-htsat-unfused
a directory     one in the format of transformers
module:Class    a `SoundEncoder` of the user's own
NAME            what an installed package brings as an entry point NAME in ``mmsearch.sounds``
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmsearch.core.errors import EncoderError
from mmsearch.core.registry import Registry
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.registry import DIRECTORY_PREFIX
from mmsearch.models.encoders.transformers import is_hub_name, locate
from mmsearch.models.encoders.weights import read_json
from mmsearch.models.own_classes import import_class, is_class_name, make
from mmsearch.models.sounds.base import SoundEncoder

SUGGESTED_SOUNDS = "hf:laion/clap-htsat-unfused"
ENCODERS: Registry[type[SoundEncoder]] = Registry("mmsearch.sounds", "encoder of sounds")


def canonical_sound_name(name: str) -> str:
    """A directory as its absolute path, so that it is found again from elsewhere; other names stay as they are."""
    place = Path(name.removeprefix(DIRECTORY_PREFIX)).expanduser()
    return str(place.resolve()) if not is_hub_name(name) and place.is_dir() else name


def open_sound_encoder(name: str, options: EncoderOptions | None = None) -> SoundEncoder:
    """Opens an encoder of sounds; never reaches the network.

    Raises:
        ModelMissing: it is not on this machine; the message says how to fetch it.
        EncoderError: there is none of that name, or it cannot be loaded.
    """
    options = options or EncoderOptions()
    name = canonical_sound_name(name)
    if is_hub_name(name) or Path(name).is_dir():
        from mmsearch.models.sounds.clap import ClapEncoder

        return ClapEncoder(locate(name if is_hub_name(name) else DIRECTORY_PREFIX + name), name, options)
    brought = ENCODERS.find(name)
    if brought is None and not is_class_name(name):
        raise EncoderError(
            f"there is no encoder of sounds {name}: expected hf:ORG/NAME, such as {SUGGESTED_SOUNDS}, a directory that "
            "holds a CLAP model in the format of transformers, or module:Class"
        )
    class_: Callable[..., SoundEncoder] = brought or import_class(name, SoundEncoder)
    encoder: SoundEncoder = make(class_, name, device=options.device, options=options)  # type: ignore[arg-type]
    return encoder


def is_sound_encoder(name: str) -> bool:
    """Whether a model of transformers that is on this machine hears, and does not see."""
    try:
        return is_hub_name(name) and read_json(locate(name) / "config.json").get("model_type") == "clap"
    except EncoderError:
        return False

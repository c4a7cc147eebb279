"""Which reranker a name means. Nothing heavy is imported before one is opened, and nothing reaches the network.

    builtin                          the one beside the weights of a built-in encoder
    a path, local-dir:PATH           a directory: of an encoder with a reranker, or of a model named below
    ORG/NAME, hf-hub:ORG/NAME        BLIP of transformers or CoCa of open_clip, in the local cache
    ARCHITECTURE/TAG                 a CoCa that open_clip knows
    module:Class                     a class of the user's own
    NAME, NAME:…                     what an installed package brings as an entry point NAME in ``mmsearch.rerankers``

The object of an entry point is a `Reranker` class, or a function of the whole name, `EncoderOptions` and the encoder of
the index (or ``None``) that gives a `Reranker`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmsearch.core.errors import EncoderError, ModelMissing, UsageError
from mmsearch.core.registry import Registry
from mmsearch.models.encoders.base import Encoder, EncoderOptions
from mmsearch.models.encoders.open_clip_files import CONFIG_FILE, HUB_PREFIX, locate
from mmsearch.models.encoders.registry import DIRECTORY_PREFIX
from mmsearch.models.encoders.weights import find_checkpoint, hub_snapshot, read_json
from mmsearch.models.own_classes import import_class, is_class_name, make
from mmsearch.models.rerankers.base import Reranker, RerankerSpec
from mmsearch.models.rerankers.builtin import DESCRIPTION, BuiltinReranker, has_reranker
from mmsearch.models.rerankers.second_look import SecondLook, has_second_look

BUILTIN = "builtin"
Opener = Callable[[str, EncoderOptions | None, Encoder | None], Reranker]

RERANKERS: Registry[Opener | type[Reranker]] = Registry("mmsearch.rerankers", "reranker")
"""Those of installed packages, by what stands before the colon of their names."""


def looks_like_a_name(text: str) -> bool:
    """Whether a word can name a reranker at all, and is no query: ``kind:photo`` has the form of ``module:Class``, so
    that a module without a dot must be there.
    """
    if text == BUILTIN or text.startswith((HUB_PREFIX, DIRECTORY_PREFIX)):
        return True
    module, colon, class_ = text.partition(":")
    if colon and is_class_name(text) and ("." in module or (class_[0].isupper() and _can_be_imported(module))):
        return True
    if re.fullmatch(r"[\w.-]+/[\w./-]+", text) or (text != "" and Path(text).expanduser().is_dir()):
        return True
    return re.fullmatch(r"[\w-]+(:\S+)?", text) is not None and module in RERANKERS


def _can_be_imported(module: str) -> bool:
    return find_spec(module) is not None or PathFinder.find_spec(module, [str(Path.cwd())]) is not None


def open_reranker(
    name: str = BUILTIN, options: EncoderOptions | None = None, encoder: Encoder | None = None
) -> Reranker:
    """Opens a reranker; never reaches the network.

    ``builtin`` is the one beside the weights of ``encoder``, which must be of the built-in kind (with several views or
    without): one that `mmsearch train --reranker` made, else the one that ships. Else ``name`` is a
    directory (of an encoder with a reranker, of a BLIP model for image-text retrieval in the format of
    transformers, or of a CoCa model in open_clip's ``local-dir`` format), ``hf-hub:ORG/NAME`` or ``ORG/NAME`` of
    such a model in the local cache, a CoCa of open_clip by ``ARCHITECTURE/TAG``, ``module:Class`` for a `Reranker` of
    one's own, or what an installed package brings.

    Raises:
        ModelMissing: it is not on this machine, or a package that it needs is not; the message says what to do.
        EncoderError: there is no reranker of that name, or it cannot be loaded.
    """
    if name == BUILTIN:
        return _beside(encoder, options)
    own = _own(name, options, encoder)
    if own is not None:
        return own
    directory = _directory(name)
    if directory is None:
        return _coca(name, options)
    if _has_own(directory):
        return _of_folder(directory, options, encoder if _directory_of(encoder) == directory else None)
    if _is_coca(directory):
        return _coca(name, options)
    architectures = read_json(directory / "config.json").get("architectures") or []
    if "BlipForImageTextRetrieval" in architectures:
        from mmsearch.models.rerankers.blip import BlipReranker

        return BlipReranker(directory, name, options)
    found = ", ".join(architectures) or "nothing that it knows"
    raise EncoderError(
        f"{directory} is no reranker ({found}); expected {DESCRIPTION}, a BlipForImageTextRetrieval of transformers, "
        "or a CoCa model in open_clip's format"
    )


def _own(name: str, options: EncoderOptions | None, encoder: Encoder | None) -> Reranker | None:
    """One of a class of the user's own, or of an installed package; ``None`` where the name means neither."""
    word, colon, _ = name.partition(":")
    if ("/" in word or word in (HUB_PREFIX[:-1], DIRECTORY_PREFIX[:-1])) or (
        not colon and Path(name).expanduser().is_dir()
    ):
        return None
    try:
        row = RERANKERS.find(word)
    except UsageError as error:
        raise EncoderError(str(error)) from error
    if row is None and not is_class_name(name):
        return None
    row = import_class(name, Reranker) if row is None else row
    if isinstance(row, type):
        reranker: Any = make(row, name, options=options, encoder=encoder)
    else:
        reranker = row(name, options, encoder)
    if not isinstance(reranker, Reranker) or not isinstance(getattr(reranker, "spec", None), RerankerSpec):
        raise EncoderError(f"{name} gives no Reranker with a RerankerSpec as its spec")
    return reranker


def _beside(encoder: Encoder | None, options: EncoderOptions | None) -> Reranker:
    from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
    from mmsearch.models.encoders.views import ManyViews

    if encoder is None:
        return _of_folder(SHIPPED_WEIGHTS, options, None)
    plain = encoder.inner if isinstance(encoder, ManyViews) else encoder
    if not isinstance(plain, BuiltinEncoder):
        raise ModelMissing(
            f"the encoder {encoder.spec.name} has no reranker of its own; name one, such as a BLIP model in the local "
            "cache: --rerank Salesforce/blip-itm-base-coco"
        )
    if not _has_own(plain.directory):
        raise ModelMissing(
            f"the encoder {encoder.spec.name} has no reranker on this machine: train one with "
            "`mmsearch train PAIRS --reranker`"
        )
    return _of_folder(plain.directory, options, plain)


def _has_own(directory: Path) -> bool:
    return has_reranker(directory) or has_second_look(directory)


def _of_folder(directory: Path, options: EncoderOptions | None, encoder: Any) -> Reranker:
    """The one in the folder of a built-in encoder: one that was trained, else the one that ships with the weights."""
    own = BuiltinReranker if has_reranker(directory) else SecondLook
    return own(directory, options, encoder)


def _directory_of(encoder: Encoder | None) -> Path | None:
    place = getattr(encoder, "directory", None)
    return None if place is None else Path(place)


def _directory(name: str) -> Path | None:
    """Where a model lies that is a folder; ``None`` for ``ARCHITECTURE/TAG`` of open_clip.

    Raises:
        ModelMissing: it is on a hub and not in the local cache.
        EncoderError: it is neither a directory nor the name of a model.
    """
    plain = name.removeprefix(DIRECTORY_PREFIX)
    path = Path(plain).expanduser()
    if path.is_dir():
        return path.resolve()
    if name.startswith(DIRECTORY_PREFIX) or not looks_like_a_name(name) or plain.count("/") != 1:
        raise EncoderError(
            f"there is no reranker {name!r}: give {BUILTIN}, a directory, a model in the local cache such as "
            "Salesforce/blip-itm-base-coco, or module:Class for one of your own"
        )
    repo = name.removeprefix(HUB_PREFIX)
    snapshot = hub_snapshot(repo)
    if snapshot is not None and find_checkpoint(snapshot) is not None:
        return snapshot
    if name.lower().startswith("coca"):
        return None
    raise ModelMissing(
        f"the weights of {repo} are not on this machine, and mmsearch never fetches them by itself: run "
        f"`hf download {repo}` (the command of huggingface_hub), or give a directory that holds them"
    )


def _is_coca(directory: Path) -> bool:
    return "multimodal_cfg" in read_json(directory / CONFIG_FILE).get("model_cfg", {})


def _coca(name: str, options: EncoderOptions | None) -> Reranker:
    local = locate(name)
    from mmsearch.models.rerankers.coca import CocaReranker

    return CocaReranker(local, options)

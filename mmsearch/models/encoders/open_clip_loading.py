"""Models and tokenizers of open_clip, opened from this machine. Nothing here reaches the network.

Importing this module imports torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch

from mmsearch.core.errors import EncoderError
from mmsearch.models.encoders.models import missing
from mmsearch.models.encoders.tokenizer import ClipTokenizer, HubTokenizer, TextTokenizer
from mmsearch.models.encoders.weights import DIRECTORY_PREFIX, LocalModel, hub_file

_keep_alive: list[Any] = []


def load_model(local: LocalModel) -> tuple[Any, dict[str, Any]]:
    """The model in float32 on the CPU, in evaluation mode, and its configuration."""
    open_clip = import_open_clip()
    with _offline():
        try:
            if local.directory is not None:
                name = DIRECTORY_PREFIX + str(local.directory)
                model = open_clip.create_model(name, require_pretrained=True)
                return model.eval(), open_clip.get_model_config(name)
            tag = open_clip.get_pretrained_cfg(local.architecture, local.tag)
            model = open_clip.create_model(
                local.architecture,
                pretrained=str(local.checkpoint),
                require_pretrained=True,
                # open_clip only warns when a tag was trained with QuickGELU and the name says nothing of it.
                force_quick_gelu=tag.get("quick_gelu", False),
                force_preprocess_cfg=tag,
            )
            return model.eval(), open_clip.get_model_config(local.architecture)
        except Exception as error:
            reason = " ".join(str(error).split())
            if isinstance(error, ImportError) and "transformers" in str(error):
                raise EncoderError(f"{local.name} needs the package transformers: pip install transformers") from error
            raise EncoderError(f"{local.name} cannot be loaded from {local.checkpoint}: {reason}") from error


def load_tokenizer(local: LocalModel, config: dict[str, Any]) -> TextTokenizer:
    """The tokenizer that the model was trained with.

    Raises:
        ModelMissing: it lies on the hub and was not fetched.
        EncoderError: it is of a kind that neither mmsearch nor the installed packages can run.
    """
    text = config["text_cfg"]
    length = int(text.get("context_length", 77))
    options = dict(text.get("tokenizer_kwargs") or {})
    hub_name = str(text.get("hf_tokenizer_name") or "").removeprefix("hf-hub:")
    if set(options) - {"clean", "strip_sep_token"} or text.get("tokenizer_mode"):
        raise EncoderError(f"{local.name} has a tokenizer with the unknown settings {text}; use another model")
    if not hub_name:
        return ClipTokenizer.from_open_clip(length, **options)
    if local.repo is None and local.directory is not None:
        path: Path | None = local.directory / "tokenizer.json"
    else:
        path = hub_file(hub_name, "tokenizer.json")
    if path is None or not path.is_file():
        if path is not None:
            raise EncoderError(f"{local.directory} holds no tokenizer.json, which {local.name} needs beside it")
        raise missing(local.name)
    return HubTokenizer.from_directory(path.parent, length, **options)


def pretrained_places() -> dict[str, tuple[str, str]]:
    """Every ``ARCHITECTURE/TAG`` of the installed open_clip: hub repository and file name (may be empty)."""
    open_clip = import_open_clip()
    places = {}
    for architecture, tag in open_clip.list_pretrained():
        place = open_clip.get_pretrained_cfg(architecture, tag).get("hf_hub")
        if place:
            repo, _, filename = place.rpartition("/")
            places[f"{architecture}/{tag}"] = (repo, filename)
    return places


def import_open_clip() -> Any:
    """The open_clip package, also where torch is a CPU build and torchvision is not."""
    _define_missing_operators()
    import open_clip

    return open_clip


def _define_missing_operators() -> None:
    """Lets torchvision be imported beside a CPU build of torch.

    PyPI has only torchvision wheels built for CUDA. Their compiled library needs libraries that a CPU build
    of torch lacks, so it is not loaded, and ``import torchvision`` then dies over the missing operators
    ``nms`` and ``qnms``. open_clip needs only the transforms, which are Python: declaring the two is enough.
    """
    if torch.version.cuda is not None or getattr(torch.version, "hip", None) or _keep_alive:
        return
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return  # open_clip's own import error says what is missing
    library = next(iter(Path(spec.origin).parent.glob("_C*.so")), None)
    if library is not None:
        with contextlib.suppress(OSError):
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call,unused-ignore]
    if not hasattr(torch.ops.torchvision, "nms"):
        fragment: Any = cast("Any", torch.library).Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            fragment.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _keep_alive.append(fragment)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Makes every request through huggingface_hub fail at once: opening a model never reaches the network."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before

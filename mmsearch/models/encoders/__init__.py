"""Encoders: segments → vectors. ``open_encoder`` opens any of them by name; nothing heavy before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.models.encoders.base import Encoder, EncoderOptions
from mmsearch.models.encoders.models import BUILTIN, canonical_name, locate, without_views
from mmsearch.models.encoders.weights import DIRECTORY_PREFIX, LocalModel

if TYPE_CHECKING:
    from mmsearch.models.encoders.open_clip import OpenClipEncoder

__all__ = ["Encoder", "EncoderOptions", "open_encoder"]


def open_encoder(name: str = BUILTIN, options: EncoderOptions | None = None, *, texts_only: bool = False) -> Encoder:
    """Opens an encoder; never reaches the network.

    ``name`` is ``builtin``, a directory with an ``encoder.json`` (made by training) or with a model in
    open_clip's local format, ``local-dir:PATH``, ``hf-hub:ORG/NAME``, or any ``ARCHITECTURE/TAG`` that
    open_clip knows (``ViT-B-32/laion2b_s34b_b79k``). With ``+views`` after any of these, the encoder looks at each
    picture three times.

    ``texts_only`` says that texts are likely all that will be asked for: an open_clip model then answers from
    its exported text encoder, without torch. The first such call exports the tower, which takes some seconds;
    an image still works and loads the whole model when it comes.

    Raises:
        ModelMissing: the weights are not on this machine; the message says how to fetch them.
        EncoderError: there is no such encoder, or it cannot be loaded.
    """
    options = options or EncoderOptions()
    plain, views = without_views(name)
    if views:
        from mmsearch.models.encoders.views import ManyViews

        return ManyViews(open_encoder(plain, options, texts_only=texts_only), canonical_name(name))
    directory = _builtin_directory(name)
    if name == BUILTIN or directory is not None:
        from mmsearch.models.encoders.builtin import BuiltinEncoder

        return BuiltinEncoder(options=options) if directory is None else BuiltinEncoder(directory, options)
    local = locate(name)
    if not texts_only:
        return _open_whole(local, options)

    from mmsearch.models.encoders.text_export import TextFirstEncoder, export_text_encoder, open_text_encoder

    tower = open_text_encoder(local, options)
    if tower is None:
        whole = _open_whole(local, options)
        export_text_encoder(whole)
        return whole
    return TextFirstEncoder(tower, local, options, lambda: _open_whole(local, options))


def _open_whole(local: LocalModel, options: EncoderOptions) -> OpenClipEncoder:
    from mmsearch.models.encoders.open_clip import OpenClipEncoder

    return OpenClipEncoder(local, options)


def _builtin_directory(name: str) -> Path | None:
    path = Path(canonical_name(name).removeprefix(DIRECTORY_PREFIX))
    return path if name != BUILTIN and (path / "encoder.json").is_file() else None

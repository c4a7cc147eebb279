"""Which encoder a name means. A name says by its form to which family it belongs; only that family's file is read.

    builtin                    the one that ships                          builtin.py
    ARCHITECTURE/TAG           a model of open_clip                        open_clip_files.py, open_clip.py
    hf-hub:ORG/NAME            one in open_clip's format, from the hub     the same
    hf:ORG/NAME                one in transformers' format, from the hub   transformers.py
    a path, local-dir:PATH     a directory in any of these formats
    module:Class               a class of the user's own
    NAME, NAME:…               what an installed package brings as an entry point NAME in ``mmsearch.encoders``

With ``+int8`` or ``+auto`` after any of the first four, images are encoded in that precision on a CPU.
With ``+views`` after any of these, the encoder looks at each picture three times. The object of an entry point is an
`Encoder` class or an `EncoderFamily`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmsearch.core.errors import EncoderError, ModelMissing, UsageError
from mmsearch.core.options import Precision
from mmsearch.core.registry import Registry
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder, EncoderFamily, EncoderOptions
from mmsearch.models.own_classes import import_class, is_class_name, make

BUILTIN = "builtin"
DIRECTORY_PREFIX = "local-dir:"
VIEWS_SUFFIX = "+views"
"""After the name of any model: pictures are looked at several times (`mmsearch.models.encoders.views`)."""

_HOME = "mmsearch.models.encoders"
ENCODERS: Registry[EncoderFamily | type[Encoder]] = Registry(
    "mmsearch.encoders",
    "encoder",
    {
        BUILTIN: f"{_HOME}.builtin:FAMILY",
        "open_clip": f"{_HOME}.open_clip_files:FAMILY",
        "hf-hub": f"{_HOME}.open_clip_files:FAMILY",
        "hf": f"{_HOME}.transformers:FAMILY",
    },
)
"""Families by what stands before the colon of their names."""
_BY_FILE = {"encoder.json": BUILTIN, "open_clip_config.json": "open_clip", "config.json": "hf"}
"""What the directory of a model holds, and the family that reads it."""


def open_encoder(name: str = BUILTIN, options: EncoderOptions | None = None, *, texts_only: bool = False) -> Encoder:
    """Opens an encoder; never reaches the network.

    ``name`` is ``builtin``, a directory with an ``encoder.json`` (made by training) or with a model in the local format
    of open_clip or transformers, ``local-dir:PATH``, ``hf-hub:ORG/NAME`` (open_clip's format) or ``hf:ORG/NAME``
    (transformers' format), any ``ARCHITECTURE/TAG`` that open_clip knows (``ViT-B-32/laion2b_s34b_b79k``),
    ``module:Class`` for an `Encoder` of one's own, or what an installed package brings; with the endings above.

    ``texts_only`` says that texts are likely all that is wanted: a model of open_clip or transformers then encodes them
    without torch.

    Raises:
        ModelMissing: the weights are not on this machine; the message says how to fetch them.
        EncoderError: there is no such encoder, or it cannot be loaded.
    """
    options = options or EncoderOptions()
    plain, views = without_views(name)
    if views:
        from mmsearch.models.encoders.views import ManyViews

        return ManyViews(open_encoder(plain, options, texts_only=texts_only), canonical_name(name))
    canonical, precision = _without_precision(canonical_name(name))
    if precision is not None and options.precision is None:
        options = replace(options, precision=precision)
    return _family_of(canonical).open(canonical, options, texts_only=texts_only)


def is_present(name: str) -> bool:
    """Whether a model can be opened without a download.

    Raises:
        EncoderError: there is no model of that name.
    """
    name = plain_name(name)
    try:
        _family_of(name).check(name)
    except ModelMissing:
        return False
    return True


def is_on_hub(name: str) -> bool:
    """Whether ``mmsearch models pull`` fetches a model of this canonical name."""
    return not name.startswith(DIRECTORY_PREFIX) and _family_of(name).is_on_hub


def without_views(name: str) -> tuple[str, bool]:
    """A name without ``+views``, and whether it had it; a directory may well be called so."""
    has_views = name.endswith(VIEWS_SUFFIX) and not Path(name.removeprefix(DIRECTORY_PREFIX)).expanduser().is_dir()
    return (name.removesuffix(VIEWS_SUFFIX) if has_views else name), has_views


def plain_name(name: str) -> str:
    """The canonical name of the model alone, without ``+views`` and precision."""
    return _without_precision(canonical_name(without_views(name)[0]))[0]


def with_precision(name: str, encoder: Encoder, options: EncoderOptions) -> str:
    """The name under which an index remembers ``encoder``, opened by ``name``, and the precision that was chosen."""
    plain, views = without_views(name)
    if not encoder.has_int8 or options.precision in (None, "fp32") or _without_precision(plain)[1] is not None:
        return name
    return f"{plain}+{options.precision}" + (VIEWS_SUFFIX if views else "")


def _without_precision(name: str) -> tuple[str, Precision | None]:
    plain, plus, word = name.rpartition("+")
    if not plus or word not in ("int8", "auto") or Path(name.removeprefix(DIRECTORY_PREFIX)).expanduser().is_dir():
        return name, None
    return plain, "int8" if word == "int8" else "auto"


def canonical_name(name: str) -> str:
    """One spelling for each model: a directory becomes ``local-dir:`` with its absolute path."""
    plain, views = without_views(name)
    if views:
        return canonical_name(plain) + VIEWS_SUFFIX
    plain, precision = _without_precision(name)
    if precision is not None:
        return f"{canonical_name(plain)}+{precision}"
    if name == BUILTIN:
        return name
    if name.startswith(DIRECTORY_PREFIX) or Path(name).expanduser().is_dir():
        directory = Path(name.removeprefix(DIRECTORY_PREFIX)).expanduser()
        return DIRECTORY_PREFIX + str(directory.resolve())
    return _family_of(name).canonical(name)


def _family_of(name: str) -> EncoderFamily:
    if name.startswith(DIRECTORY_PREFIX):
        return _family_of_directory(name)
    word, colon, _ = name.partition(":")
    if colon or "/" not in name:
        family = _family(word)
        if family is not None:
            return family
    return _OwnClass() if is_class_name(name) else _known("open_clip")


def _family_of_directory(name: str) -> EncoderFamily:
    directory = Path(name.removeprefix(DIRECTORY_PREFIX))
    if not directory.is_dir():
        raise EncoderError(f"there is no directory {directory}; {name} must name one that holds a model")
    for file, word in _BY_FILE.items():
        if (directory / file).is_file():
            return _known(word)
    raise EncoderError(
        f"{directory} holds no model: expected encoder.json (made by training), open_clip_config.json (open_clip's "
        "format) or config.json (transformers' format)"
    )


def _known(word: str) -> EncoderFamily:
    family = _family(word)
    assert family is not None
    return family


def _family(word: str) -> EncoderFamily | None:
    try:
        row = ENCODERS.find(word)
    except UsageError as error:
        raise EncoderError(str(error)) from error
    if row is None or isinstance(row, EncoderFamily):
        return row
    if isinstance(row, type) and issubclass(row, Encoder):
        return _OwnClass(row)
    if isinstance(row, type) and issubclass(row, EncoderFamily):
        return row()
    raise EncoderError(
        f"the entry point {word} of {ENCODERS.group} is of the type {type(row).__name__}; expected an Encoder class or "
        "an EncoderFamily"
    )


class _OwnClass(EncoderFamily):
    """``module:Class``, or the class that an entry point brings."""

    def __init__(self, brought: type[Encoder] | None = None) -> None:
        self._brought = brought

    def check(self, name: str) -> None:
        if self._brought is None:
            import_class(name, Encoder)

    def open(self, name: str, options: EncoderOptions, *, texts_only: bool = False) -> Encoder:
        class_ = self._brought or import_class(name, Encoder)
        encoder: Encoder = make(class_, name, options=options)
        unset = [field for field in ("spec", "input_size", "max_text_tokens") if not hasattr(encoder, field)]
        if unset or not isinstance(encoder.spec, EncoderSpec):
            raise EncoderError(
                f"{name} sets no {' and no '.join(unset)}"
                if unset
                else f"the spec of {name} is of the type {type(encoder.spec).__name__}; expected an EncoderSpec"
            )
        return encoder

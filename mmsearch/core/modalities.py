"""Modalities: what kinds of documents there are, each described once.

A new one is a row in `MODALITIES` (or an entry point of the group ``mmsearch.modalities`` of an installed package) and
a reader of its files. What is stored is the name, so an index may hold modalities that are not described here: their
documents are texts, as far as anybody knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mmsearch.core.errors import UsageError
from mmsearch.core.registry import Registry

Group = Literal["visual", "text"]
"""Whose scores are alike. In one list passages would win over any picture: two texts always lie closer to each other
than a text and a picture."""


@dataclass(frozen=True)
class ModalitySpec:
    """``name``: lower case letters, as it is stored and as ``type:`` takes it; ``plural``: of its documents.

    ``group``: what its vectors compare like; the visual ones are found by default. ``has_pictures``: whether its
    segments can be shown, read (OCR) and reranked as pictures. ``is_sampled``: whether its segments are single looks at
    something that goes on, so that neighbours with like scores make one moment. ``is_inside``: whether its segments are
    parts of documents of other modalities, such as what is said in a video.
    """

    name: str
    plural: str
    group: Group = "text"
    has_pictures: bool = False
    is_sampled: bool = False
    is_inside: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z]+", self.name):
            raise UsageError(f"a modality's name is lower case letters, got {self.name!r}")


MODALITIES: Registry[ModalitySpec] = Registry(
    "mmsearch.modalities",
    "modality",
    {
        "image": ModalitySpec("image", "images", "visual", has_pictures=True),
        "video": ModalitySpec("video", "videos", "visual", has_pictures=True, is_sampled=True),
        "text": ModalitySpec("text", "texts"),
        "sound": ModalitySpec("sound", "recordings"),
        "speech": ModalitySpec("speech", "spoken passages", is_inside=True),
        "audio": ModalitySpec("audio", "moments of sound", is_inside=True),
    },
)


def spec_of(name: str) -> ModalitySpec:
    """The description of a modality; of one that an index holds and nobody describes, what is safe to assume."""
    try:
        known = MODALITIES.find(name)
    except UsageError:  # of a package that is broken now: its documents are still there
        known = None
    if known is None:
        known = ModalitySpec("unknown", f"of modality {name}")
    return known


def group_of(name: str) -> Group:
    """What vectors of a modality compare like."""
    return spec_of(name).group


def has_pictures(name: str) -> bool:
    """Whether segments of a modality can be shown as pictures."""
    return spec_of(name).has_pictures


def is_passages(names: Iterable[str] | None) -> bool:
    """Whether modalities hold nothing but passages of text; ``None`` stands for all that there are."""
    return names is not None and {group_of(name) for name in names} == {"text"}


def names_in(group: Group, present: Iterable[str] = ()) -> tuple[str, ...]:
    """The modalities of a group: mmsearch's own, and others out of ``present``, those that an index has."""
    return tuple(name for name in dict.fromkeys((*MODALITIES.own, *sorted(present))) if group_of(name) == group)


def names_with_pictures(present: Iterable[str] = ()) -> tuple[str, ...]:
    """The modalities that have pictures: mmsearch's own, and others out of ``present``."""
    return tuple(name for name in dict.fromkeys((*MODALITIES.own, *sorted(present))) if has_pictures(name))


def check_names(names: Iterable[str]) -> None:
    """Refuses a modality that nobody describes.

    Raises:
        UsageError: with those that there are.
    """
    for name in names:
        if name not in MODALITIES:
            raise UsageError(f"no such modality: {name}; there are {', '.join(MODALITIES)}")

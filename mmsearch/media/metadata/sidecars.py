"""What lies beside a photo or video and is about it: captions (.txt), XMP, the JSON of Google Takeout.

Which file belongs to which: `mmsearch.sources.sidecars`. What stands beside a file counts more than what it says
itself, as in Lightroom, darktable and digiKam: people write there what they correct, and keep the file as it was. Of
several files the first plain text opens the caption; of date, place and rating, XMP comes before Takeout.
Two dates know less than they say and yield to the file's own: see `DateRule`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

from mmsearch.core.errors import MediaError
from mmsearch.core.shortage import shortage_of
from mmsearch.core.types import NOTHING_BESIDE, Beside, DateRule, MediaInfo
from mmsearch.media.base import opened
from mmsearch.media.metadata.takeout import read_takeout
from mmsearch.media.metadata.values import lines_of
from mmsearch.media.metadata.xmp import date_of_file, read_xmp, xmp_info
from mmsearch.media.text.encoding import decode_text

MAX_CAPTION_BYTES = 65_536
MAX_XMP_BYTES = 4_000_000
MAX_JSON_BYTES = 1_000_000
"""A longer file is not read: nothing that describes a photo is."""


def read_sidecars(path: Path, names: Iterable[str]) -> Beside:
    """All that the files called ``names`` beside ``path`` say of it, in that order. One that cannot be read is none."""
    texts: list[str | None] = []
    info, rule = MediaInfo(), NOTHING_BESIDE.rule
    has_caption = False
    for name in names:
        if has_caption and name.lower().endswith(".txt"):
            continue
        text, found, its_rule = _read(path.with_name(name))
        has_caption |= text is not None
        texts.append(text)
        if found.taken_at is not None and info.taken_at is None:
            rule = its_rule
        info = _filled(info, found)
    return Beside(lines_of(texts), replace(info, description=None), rule)


def _read(sidecar: Path) -> tuple[str | None, MediaInfo, DateRule]:
    suffix = sidecar.suffix.lower()
    most = {".txt": MAX_CAPTION_BYTES, ".xmp": MAX_XMP_BYTES}.get(suffix, MAX_JSON_BYTES)
    try:
        with opened(sidecar, None) as stream:
            data = stream.read(most + 1)
        if len(data) > most:
            return None, MediaInfo(), "always"
        if suffix == ".txt":
            return decode_text(data).strip() or None, MediaInfo(), "always"
    except MediaError as error:
        if shortage_of(error) is not None:  # or it would be taken for one that is not there, from now on
            raise
        return None, MediaInfo(), "always"
    if suffix == ".json":
        info = read_takeout(data) or MediaInfo()
        return info.description, info, "another day"
    xmp = read_xmp(data)
    info = xmp_info(xmp)
    if info.taken_at is None:
        return info.description, replace(info, taken_at=date_of_file(xmp)), "alone"
    return info.description, info, "always"


def _filled(info: MediaInfo, more: MediaInfo) -> MediaInfo:
    """What is missing taken from ``more``; a place is taken as a whole."""
    missing = {one.name: getattr(more, one.name) for one in fields(info) if getattr(info, one.name) is None}
    if info.latitude is not None:
        missing = {name: value for name, value in missing.items() if name != "longitude"}
    return replace(info, **missing)

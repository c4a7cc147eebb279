"""Recordings: their tags and their length. What is said in them comes later, see `mmsearch.pipeline.speech`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch.core.errors import MediaError
from mmsearch.core.types import MediaInfo, Modality
from mmsearch.media.base import Decoded, DecodedSegment, DecodeOptions, Decoder
from mmsearch.media.metadata.values import parse_date
from mmsearch.media.sound.containers import has_sound, opened_container
from mmsearch.media.text.passages import cut

_DATES = ("date", "originaldate", "creation_time", "tyer", "tdrc", "year")
_DESCRIBING = ("title", "artist", "album", "genre", "comment", "description", "lyrics")


class SoundDecoder(Decoder):
    """Recordings: one passage of what their tags say, or of how long they are where these say nothing.

    Cover art is no picture of the recording. What is sung or said is read from subtitles or recognised afterwards.
    """

    modality: Modality = "sound"

    def decode(self, path: Path, options: DecodeOptions, data: bytes | None = None) -> Decoded:
        """See :meth:`Decoder.decode`."""
        with opened_container(path, data) as container:
            if not has_sound(container):
                raise MediaError("no sound in it that can be decoded")
            info = info_of(container)
        words = [text for text in (info.title, info.artist, info.album) if text]
        told = ". ".join(words) or f"a recording of {_length(info.duration_s)}"
        passages = list(cut(told, options.max_tokens, options.count_tokens))[:1]
        return Decoded(info, iter([DecodedSegment(text=passage) for passage in passages]))


def info_of(container: Any) -> MediaInfo:
    """What the tags of a recording say."""
    tags = {
        name.lower(): value for one in (*container.streams.audio, container) for name, value in one.metadata.items()
    }
    duration = float(container.duration) / 1e6 if container.duration and container.duration > 0 else None
    said = dict.fromkeys(" ".join(tags[name].split()) for name in _DESCRIBING if tags.get(name, "").strip())
    return MediaInfo(
        duration_s=duration,
        taken_at=next((date for name in _DATES if (date := _date(tags.get(name)))), None),
        description="\n".join(said)[:20_000] or None,
        title=_tag(tags, "title"),
        artist=_tag(tags, "artist", "album_artist", "author", "composer"),
        album=_tag(tags, "album"),
    )


def _tag(tags: Mapping[str, str], *names: str) -> str | None:
    return next((" ".join(tags[name].split())[:500] for name in names if tags.get(name, "").strip()), None)


def _date(text: str | None) -> str | None:
    """Many tags hold a year alone, which stands for its first day."""
    found = re.fullmatch(r"\s*((?:1[89]|20)\d\d)(?:-(\d\d))?\s*", text or "")
    return parse_date(f"{found[1]}-{found[2] or '01'}-01" if found else text)


def _length(seconds: float | None) -> str:
    if seconds is None:
        return "unknown length"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} minutes" if minutes > 1 else f"{60 * minutes + rest} seconds"

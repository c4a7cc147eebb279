"""Transcripts as files: SubRip, WebVTT, plain text and JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from mmsearch.media.sound.passages import Cue


def as_srt(cues: Iterable[Cue]) -> str:
    """SubRip."""
    parts = (
        f"{n}\n{_stamp(cue.start_s, ',')} --> {_stamp(cue.end_s, ',')}\n{cue.text}\n" for n, cue in enumerate(cues, 1)
    )
    return "\n".join(parts)


def as_vtt(cues: Iterable[Cue]) -> str:
    """WebVTT."""
    parts = (f"{_stamp(cue.start_s, '.')} --> {_stamp(cue.end_s, '.')}\n{_escaped(cue.text)}\n" for cue in cues)
    return "\n".join(["WEBVTT\n", *parts])


def as_text(cues: Iterable[Cue]) -> str:
    """A line for each passage."""
    return "".join(f"{cue.text}\n" for cue in cues)


def as_json_lines(cues: Iterable[Cue]) -> str:
    """An object for each passage, with the times of its words where these are known."""
    return "".join(
        json.dumps(
            {
                "start_s": round(cue.start_s, 3),
                "end_s": round(cue.end_s, 3),
                "text": cue.text,
                "language": cue.language,
                "words": [[text.strip(), round(start, 2), round(end, 2)] for text, start, end in cue.words],
            },
            ensure_ascii=False,
        )
        + "\n"
        for cue in cues
    )


WRITERS: dict[str, Callable[[Iterable[Cue]], str]] = {
    "srt": as_srt, "vtt": as_vtt, "txt": as_text, "jsonl": as_json_lines
}  # fmt: skip
"""By the suffix of the file."""


def _stamp(seconds: float, point: str) -> str:
    thousandths = round(1000 * seconds)
    hours, rest = divmod(thousandths, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

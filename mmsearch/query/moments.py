"""Frames of a video to one moment; near-duplicates to one hit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from mmsearch.models.encoders.base import FloatArray
from mmsearch.store.base import Look, Segment

SAME = 0.99
"""Two pictures are near-duplicates if their vectors are at least so similar (and nothing known speaks against it)."""
SAME_SCALED, OTHER_SCALE = 0.97, 1.25
"""The same for two pictures of one shape whose sides differ by this factor at least: a photo and its smaller copy, of
which an encoder sees a little less."""
SAME_SHAPE = 0.02
SAME_SECONDS = 3.0
COMPARED = 64
"""Places that are compared with those before them at once."""


class Moment(NamedTuple):
    """A stretch of a video, in seconds, and the time of its best frame."""

    start_s: float
    end_s: float
    best_s: float


def moment_around(segments: Sequence[Segment], scores: FloatArray, best: int) -> Moment | None:
    """The run of frames around ``best`` (a place in ``segments``) whose scores are nearer to the best frame's than
    to the mean of the video; ``None`` where the segments have no times.
    """
    top = segments[best]
    if top.start_s is None:
        return None
    enough = (float(scores[best]) + float(scores.mean())) / 2
    first = last = best
    while first > 0 and scores[first - 1] >= enough:
        first -= 1
    while last + 1 < len(segments) and scores[last + 1] >= enough:
        last += 1
    end = segments[last].end_s
    return Moment(segments[first].start_s or 0.0, top.start_s if end is None else end, top.start_s)


def moments_of(segments: Sequence[Segment], scores: FloatArray) -> list[tuple[int, Moment]]:
    """All stretches of a video whose frames are nearer to the best frame's score than to the mean of the video: the
    place of the best frame of each in ``segments``, and its times; the stretch with the best frame first.
    """
    if not len(scores):
        return []
    is_good = scores >= (float(scores.max()) + float(scores.mean())) / 2 - 1e-6
    edges = np.flatnonzero(np.diff(is_good, prepend=False, append=False))
    bests = [start + int(np.argmax(scores[start:end])) for start, end in edges.reshape(-1, 2).tolist()]
    found = []
    for best, (start, end) in zip(bests, edges.reshape(-1, 2).tolist(), strict=True):
        top, last = segments[best].start_s, segments[end - 1]
        if top is not None:
            found.append((best, Moment(segments[start].start_s or 0.0, last.end_s or last.start_s or top, top)))
    return sorted(found, key=lambda one: -float(scores[one[0]]))


def fold_duplicates(vectors: FloatArray, looks: Sequence[Look | None]) -> list[list[int]]:
    """Groups of places, best first, each led by the hit that stands for its near-duplicates.

    ``vectors`` (n, dim), in the order of the ranking. ``looks``: what is known of each picture, ``None`` for what
    is never folded (videos, texts).
    """
    groups: dict[int, list[int]] = {}
    for start in range(0, len(looks), COMPARED):
        places = [*groups, *range(start, min(start + COMPARED, len(looks)))]
        cosines = vectors[start : start + COMPARED] @ vectors[places].T
        similar = np.tril(cosines >= SAME_SCALED, len(groups) - 1)  # a place with leaders, and with those before it
        is_any = similar.any(axis=1).tolist()
        for row, look in enumerate(looks[start : start + COMPARED]):
            before = np.flatnonzero(similar[row]).tolist() if is_any[row] and look is not None else ()
            leader = next(
                (
                    places[i] for i in before
                    if places[i] in groups and are_same(float(cosines[row, i]), looks[places[i]], look)
                ), start + row,
            )  # fmt: skip
            groups.setdefault(leader, []).append(start + row)
    return list(groups.values())


def are_same(cosine: float, one: Look | None, other: Look, same: float = SAME) -> bool:
    """Whether two pictures whose vectors are so similar are near-duplicates: ``same`` in place of `SAME`, and as much
    less for a smaller copy as `SAME_SCALED` is.
    """
    if not _could_be_same(one, other) or cosine < same - (SAME - SAME_SCALED):
        return False
    return cosine >= same or (one is not None and _is_scaled(one, other))


def _is_scaled(one: Look, other: Look) -> bool:
    if not (one.width and other.width and one.height and other.height):
        return False
    return max(one.width / other.width, other.width / one.width) >= OTHER_SCALE


def _could_be_same(one: Look | None, other: Look) -> bool:
    """Whether two pictures have the same shape, and were not taken at different times."""
    if one is None:
        return False
    sizes = (one.width, one.height, other.width, other.height)
    if all(sizes):
        ratio = (one.width * other.height) / (one.height * other.width)  # type: ignore[operator]
        if abs(ratio - 1) > SAME_SHAPE:
            return False
    times = [_time(look.taken_at) for look in (one, other)]
    return None in times or abs((times[0] - times[1]).total_seconds()) <= SAME_SECONDS  # type: ignore[operator]


def _time(iso: str | None) -> datetime | None:
    try:
        return None if iso is None else datetime.fromisoformat(iso).replace(tzinfo=None)
    except ValueError:
        return None

"""Frames of a video to one moment; near-duplicates to one hit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmsearch.models.encoders.base import FloatArray
from mmsearch.query.looks import SAME, SCALED, Looks
from mmsearch.store.base import Look, Segment

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
    known = Looks.of(looks)
    groups: dict[int, list[int]] = {}
    for start in range(0, len(looks), COMPARED):
        end = min(start + COMPARED, len(looks))
        places = np.array([*groups, *range(start, end)])
        cosines = vectors[start:end] @ vectors[places].T
        before = np.tril(cosines >= SAME - SCALED, len(groups) - 1)  # of each, the leaders and those before it
        rows, columns = np.nonzero(before)
        same = known.same(places[columns], start + rows, cosines[rows, columns]) if len(rows) else rows
        leader: dict[int, int] = {}
        for place, other in zip((start + rows[same]).tolist(), places[columns[same]].tolist(), strict=True):
            if place not in leader and other not in leader:
                leader[place] = other
        for place in range(start, end):
            groups.setdefault(leader.get(place, place), []).append(place)
    return list(groups.values())

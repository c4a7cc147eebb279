"""Which frames of a video are worth a look, and which of those become segments. Nothing here decodes
anything.

Three rules, each in its own class or function:

- :func:`plan_group`: of a keyframe and the frames up to the next one, which moments are wanted, and whether
  the keyframe alone will do.
- :class:`Chooser`: of the frames that were decoded, those at the wanted moments and those right after a shot
  cut.
- :class:`Merger`: neighbours that show the same become one moment with a start and an end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from mmsearch.media.video.similarity import SAME_PICTURE, Thumbnail, frame_difference, is_other_shot

MIN_GAP = 0.25
"""Cuts are followed at most every fourth of the interval, so that flicker cannot flood an index."""

_TOLERANCE_S = 1e-3
_USUAL_CHANGE = 0.9
_CUT = 0.1
_SETTLED = 0.01
_CUT_TIMES_USUAL = 3.0


@dataclass(frozen=True)
class Group:
    """Consecutive packets, as far as planning needs them: presentation times in seconds, number of frames.

    A group runs from a keyframe to the next one. A very long one comes in parts: ``continued`` says that it
    has no keyframe because it goes on from the part before, ``continues`` that another part follows.
    """

    start: float
    end: float
    frames: int
    continued: bool = False
    continues: bool = False


Effort = Literal["nothing", "keyframe", "until wanted", "all"]
"""How much of a group is decoded."""


@dataclass(frozen=True)
class GroupPlan:
    """The moments of a group that need a frame, in seconds, and how much has to be decoded for them."""

    wanted: tuple[float, ...]
    decode: Effort


def plan_group(group: Group, interval: float, last_wanted: float, last_look: float) -> GroupPlan:
    """What to do with a group, given the last moment that was wanted and the last frame that was looked at.

    Where the next keyframe comes within the interval, keyframes are dense enough: this one is wanted if
    waiting for the next would make the gap since ``last_wanted`` too long; otherwise it is at most looked at,
    for cuts. A longer group is divided evenly, in parts of at most one interval, so its last part needs no
    decoding.
    """
    span = group.end - group.start
    if not group.continued and not group.continues and span <= interval + _TOLERANCE_S:
        if group.end - last_wanted > interval + _TOLERANCE_S:
            return GroupPlan((group.start,), "keyframe")
        look = group.start - last_look >= MIN_GAP * interval - _TOLERANCE_S
        return GroupPlan((), "keyframe" if look else "nothing")
    # More moments than frames cannot be served; times of damaged files can be absurd.
    parts = max(1, math.ceil(min((span - _TOLERANCE_S) / interval, group.frames)))
    wanted = tuple(group.start + number * (span / parts) for number in range(parts))
    return GroupPlan(wanted, "all" if group.continues else "until wanted")


FrameT = TypeVar("FrameT")
PictureT = TypeVar("PictureT")


class Chooser(Generic[FrameT]):
    """Chooses among decoded frames, shown to it in the order of time, each with a small picture of itself."""

    def __init__(self, interval: float) -> None:
        self._min_gap = MIN_GAP * interval
        self._wanted: deque[float] = deque()
        self._before: Thumbnail | None = None
        self._chosen: Thumbnail | None = None
        self._usual = _CUT / _CUT_TIMES_USUAL
        self._last_chosen = -math.inf
        self._cut_waits = False
        self._held: tuple[float, FrameT] | None = None

    def want(self, moments: Iterable[float]) -> None:
        """Adds moments, in order, that need a frame."""
        self._wanted.extend(moments)

    def choose(self, time: float, frame: FrameT, small: Thumbnail) -> Iterator[tuple[float, FrameT]]:
        """The frames to keep, now that the one at ``time`` is known: none, this one, the one before, or both.

        A wanted moment gets the first frame at or after it. Where that comes late (slides, screen
        recordings), the frame that was on show at the moment is kept as well.
        """
        due = self._before is None
        if self._wanted and self._wanted[0] < time - self._min_gap:
            yield from self._keep_held()
        while self._wanted and self._wanted[0] <= time + _TOLERANCE_S:
            self._wanted.popleft()
            due = True
        self._cut_waits |= self._is_other_scene(small)
        if (due or self._cut_waits) and time - self._last_chosen >= self._min_gap - _TOLERANCE_S:
            self._last_chosen, self._cut_waits, self._held, self._chosen = time, False, None, small
            yield time, frame
        else:
            self._held = (time, frame)

    def finish(self) -> Iterator[tuple[float, FrameT]]:
        """The last frame, if a moment after it was wanted."""
        if self._wanted:
            yield from self._keep_held()

    def _keep_held(self) -> Iterator[tuple[float, FrameT]]:
        if self._held is not None:
            self._last_chosen = self._held[0]
            yield self._held
            self._held = None

    def _is_other_scene(self, small: Thumbnail) -> bool:
        """A cut, or the end of a dissolve.

        A cut is a change far beyond what is usual here: a moving camera changes all frames, a cut changes one.
        A dissolve has ended when frames stand still again and show something else than the last that was kept.
        """
        before, self._before = self._before, small
        if before is None:
            return False
        change = frame_difference(before, small)
        cut = change > max(_CUT, _CUT_TIMES_USUAL * self._usual)
        self._usual = _USUAL_CHANGE * self._usual + (1 - _USUAL_CHANGE) * min(change, _CUT)
        return cut or (change < _SETTLED and is_other_shot(self._chosen, small))


@dataclass(frozen=True)
class Moment(Generic[PictureT]):
    """A picture and the time for which it stands, in seconds."""

    start: float
    end: float
    picture: PictureT


class Merger(Generic[PictureT]):
    """Turns chosen frames into contiguous moments; a frame like the one before only prolongs its moment."""

    def __init__(self) -> None:
        self._open: tuple[float, PictureT, Thumbnail] | None = None

    def add(self, time: float, picture: PictureT, small: Thumbnail) -> Iterator[Moment[PictureT]]:
        """The moment that a frame ends, if it shows something else."""
        if self._open is None:
            self._open = (time, picture, small)
        elif frame_difference(self._open[2], small) >= SAME_PICTURE:
            yield Moment(self._open[0], time, self._open[1])
            self._open = (time, picture, small)

    def finish(self, end: float) -> Iterator[Moment[PictureT]]:
        """The last moment, up to ``end``."""
        if self._open is not None:
            yield Moment(self._open[0], max(end, self._open[0]), self._open[1])
            self._open = None

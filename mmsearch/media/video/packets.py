"""Packets and frames on their way: times put right, and the frames inside a group decoded on demand.

Works on PyAV's objects without importing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mmsearch.media.video.sampling import Group
from mmsearch.media.video.similarity import Thumbnail

_INSTANT = 1e-4
_JUMP_S = 1.0


@dataclass(frozen=True)
class Look:
    """A decoded frame, its time in seconds, and a glance at it."""

    time: float
    frame: Any
    small: Thumbnail


class GroupFrames:
    """The frames inside one group, decoded on demand; those before its keyframe need the group before."""

    def __init__(
        self, stream: Any, packets: list[Any], group: Group, decode: Callable[[Any, Any], Iterator[Look]]
    ) -> None:
        self._stream = stream
        self._packets = packets
        self._group = group
        self._decode = decode
        self._fed = 0

    def until(self, moment: float) -> Iterator[Look]:
        """Frames in the order of time, up to the first at or after ``moment``; goes on where it stopped."""
        while self._fed < len(self._packets):
            packet = self._packets[self._fed]
            self._fed += 1
            reached = False
            for look in self._sound(self._decode(self._stream, packet)):
                reached = reached or look.time >= moment
                yield look
            if reached:
                return
        if not self._group.continues:
            yield from self._sound(self._decode(self._stream, None))

    def close(self) -> None:
        """Forgets what the decoder still holds of this group, unless it goes on."""
        if self._fed and not self._group.continues:
            self._stream.codec_context.flush_buffers()

    def _sound(self, looks: Iterator[Look]) -> Iterator[Look]:
        return (look for look in looks if self._group.continued or look.time >= self._group.start - _INSTANT)


class Clock:
    """Rewrites the times of packets: they start at 0, and never jump back where recordings were joined."""

    def __init__(self, origin: float, stream: Any) -> None:
        self._base = stream.time_base
        self._shift = -round(origin / self._base)
        rate = stream.average_rate
        self._usual = max(1, round(1 / rate / self._base)) if rate else 1
        self._last: int | None = None

    def set(self, packet: Any) -> bool:
        """Sets the times of a packet; ``False`` if it has none and none can be guessed."""
        decoding = packet.dts if packet.dts is not None else packet.pts
        if decoding is None:
            decoding = (self._last or 0) + self._usual - self._shift
        if self._last is not None and seconds_of(decoding + self._shift - self._last, self._base) < -_JUMP_S:
            self._shift = self._last + self._usual - decoding
        self._last = decoding + self._shift
        shown = (packet.pts if packet.pts is not None else decoding) + self._shift
        if not (abs(shown) < 2**62 and abs(self._last) < 2**62):
            return False
        packet.pts, packet.dts = shown, self._last
        return True

    def duration(self, packet: Any) -> float:
        """Seconds for which the frame of a packet is shown."""
        return seconds_of(packet.duration or self._usual, self._base)


def seconds(packet: Any) -> float:
    """The presentation time of a packet whose times a Clock has set."""
    return seconds_of(packet.pts, packet.time_base)


def seconds_of(ticks: int, base: Fraction) -> float:
    """``float(ticks * base)`` to the last bit, without a fraction for every packet."""
    return ticks * base.numerator / base.denominator


def origin(container: Any, stream: Any) -> float:
    """Seconds at which players start counting: the earliest time of all streams."""
    if container.start_time is not None:
        return float(container.start_time) / 1e6
    return seconds_of(stream.start_time, stream.time_base) if stream.start_time is not None else 0.0

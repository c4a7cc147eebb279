"""Videos: moments with a start and an end, each shown by one frame. The only file that imports PyAV.

A video is read once, from front to back, packet by packet; nothing ever seeks. Packets are collected up to
the next keyframe, and :func:`~mmsearch.media.video.sampling.plan_group` says what of the group is decoded:
where keyframes are dense enough only they are, elsewhere the frames up to the last wanted moment, without
those that no other frame depends on and without the loop filter. Memory holds one group of compressed packets
and one picture, however long the video is.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmsearch.core.errors import MediaError
from mmsearch.core.types import MediaInfo, Modality
from mmsearch.media.base import Decoded, DecodedSegment, DecodeOptions, Decoder
from mmsearch.media.formats import VIDEO, formats
from mmsearch.media.hdr import Coding
from mmsearch.media.video.frame import Show, glance, pixel_shape, read_info
from mmsearch.media.video.packets import Clock, GroupFrames, Look, origin, seconds, seconds_of
from mmsearch.media.video.sampling import MIN_GAP, Chooser, Group, Merger, plan_group
from mmsearch.media.video.similarity import is_other_shot, thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_GROUP_BYTES = 32_000_000
MAX_GROUP_S = 30.0
"""A group of pictures beyond either is read in parts."""

_FIRST_PACKETS = 40
EXACT_S = 0.25
EXACT_INTERVAL_S = 4.0
"""A cut between keyframes is looked for if its time may be off by more than the first; with longer intervals than the
second speed counts, and cuts are placed at keyframes."""

_OF_ABSURD_HEADERS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What reading raises where PyAV gives ``None`` or numbers that cannot be."""


class CodecUse(Enum):
    """What a codec is opened for."""

    SEQUENCE = "sequence"
    KEYFRAMES = "keyframes"


class VideoDecoder(Decoder):
    """Videos.

    Looks at a video at most ``options.frame_interval_s`` seconds apart, more often at shot cuts, and merges
    neighbours that show the same: segments are contiguous and together last as long as the video. Times are
    seconds since the start of the presentation, right for variable frame rates. Pictures are upright, of
    square pixels, and scaled to twice ``options.min_side`` on the shorter side, never enlarged.

    A damaged or missing end loses only what is missing: ``final_info().note`` says so.
    """

    modality: Modality = "video"
    max_bytes = 1_000_000_000_000

    def signature(self, options: DecodeOptions) -> str:
        """See :meth:`Decoder.signature`: with another interval, a video gives other segments."""
        interval = options.frame_interval_s
        usual = interval == DecodeOptions.frame_interval_s
        return super().signature(options) + ("" if usual else f" every {interval:g} s")

    def decode(self, path: Path, options: DecodeOptions, data: bytes | None = None) -> Decoded:
        """See :meth:`Decoder.decode`. The file is opened here for its header, and again for its segments."""
        source = _Source(path, data)
        with _opened(source, options) as (container, stream):
            info = read_info(container, stream, _first_frame(container, stream))
        reading = _Reading(source, options, info)
        return Decoded(info, reading.segments(), reading.final_info)

    def describe(self, path: Path, options: DecodeOptions) -> MediaInfo | Literal["again"]:
        """See :meth:`Decoder.describe`: high dynamic range was shown as if it were plain, and a date
        in UTC taken for one in local time.
        """
        with _opened(_Source(path, None), options) as (container, stream):
            context = stream.codec_context
            is_hdr = Coding(int(context.color_primaries), int(context.color_trc)).is_hdr
            return "again" if is_hdr else read_info(container, stream)


def look_at_clip(path: Path) -> tuple[float | None, str | None]:
    """How long a video is, in seconds, and the identifier that Apple's cameras give a photo and its clip.

    Raises:
        MediaError: as `VideoDecoder.decode`.
    """
    with _opened(_Source(path, None), DecodeOptions()) as (container, stream):
        tags = {name.lower(): value for name, value in container.metadata.items()}
        return read_info(container, stream).duration_s, tags.get("com.apple.quicktime.content.identifier")


@dataclass(frozen=True)
class _Source:
    """Where a video's bytes are: on the disk, or at hand as ``data``."""

    path: Path
    data: bytes | None

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.data is None else len(self.data)

    def open(self) -> Any:
        """What PyAV opens: each time a fresh reader of the bytes, so that two containers do not share a place."""
        return f"file:{self.path.absolute()}" if self.data is None else io.BytesIO(self.data)


@cache
def _demuxers() -> str:
    return ",".join(row.reader for row in formats(VIDEO))


@contextmanager
def _opened(source: _Source, options: DecodeOptions, use: CodecUse = CodecUse.SEQUENCE) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream; FFmpeg's errors become reasons.

    Playlists and everything else that could make FFmpeg open other files or the network is not among the
    demuxers, and ``file`` is the only protocol.
    """
    import av

    try:
        if source.size == 0:
            raise MediaError("empty file")
        with av.open(
            source.open(),
            metadata_errors="replace",
            options={"format_whitelist": _demuxers(), "protocol_whitelist": "file"},
        ) as container:
            stream = _video_stream(container, options)
            _prepare_codec(stream.codec_context, options, use)
            yield container, stream
    except MediaError:
        raise
    except (MemoryError, RecursionError) as error:
        raise MediaError("there was not enough memory to decode this video") from error
    except (av.error.FFmpegError, OSError, *_OF_ABSURD_HEADERS) as error:
        raise MediaError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, (PermissionError, FileNotFoundError, IsADirectoryError)):
        return f"cannot be read: {said}"
    if "Invalid data" in said or "End of file" in said:
        return f"damaged video or not a video at all: its structure cannot be read ({said})"
    return f"the video cannot be read: {said}"


def _video_stream(container: Any, options: DecodeOptions) -> Any:
    """The largest real video stream; cover pictures of music do not count."""
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams} - {"video"})
        raise MediaError(f"no video in it: it holds only {' and '.join(kinds) or 'a cover picture or nothing'}")
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        raise MediaError("its video is coded in a way that is not known here")
    stream = max(streams, key=lambda one: (one.codec_context.width or 0) * (one.codec_context.height or 0))
    context = stream.codec_context
    megapixels = (context.width or 0) * (context.height or 0) / 1e6
    if megapixels > options.max_megapixels:
        raise MediaError(
            f"too large: frames of {context.width} × {context.height} are {megapixels:.1f} megapixels, the limit is "
            f"{options.max_megapixels:g}; raise it with --max-megapixels"
        )
    if not context.width or not context.height:
        raise MediaError("damaged video: the size of its frames is not known")
    return stream


def _prepare_codec(context: Any, options: DecodeOptions, use: CodecUse) -> None:
    """Sequences are decoded fast, without what no sampled frame needs; keyframes alone, and at once."""
    limits = {"max_pixels": str(max(1, int(options.max_megapixels * 1e6)))}
    if use is CodecUse.SEQUENCE:
        context.thread_type, context.thread_count = "FRAME", options.codec_threads
        context.skip_frame = "NONREF"
        context.options = {**limits, "skip_loop_filter": "all"}
    else:
        # Threads that work on several frames would hold a single one back.
        context.thread_type, context.thread_count = "SLICE", options.codec_threads
        context.options = limits


def _is_cover(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _first_frame(container: Any, stream: Any) -> Any:
    """The frame that tells how the video is turned, or ``None``: it is damaged, and said to be later."""
    import av

    try:
        for packet in islice(container.demux(stream), _FIRST_PACKETS):
            for frame in packet.decode():
                return frame
    except (av.error.FFmpegError, OSError, ValueError):
        pass
    return None


class _Reading:
    """One video while it is read: its segments, and what is only known at the end."""

    def __init__(self, source: _Source, options: DecodeOptions, info: MediaInfo) -> None:
        self._source = source
        self._options = options
        self._info = info
        self._damaged: set[int] = set()
        self._end_s = 0.0
        self._broken: str | None = None

    def segments(self) -> Iterator[DecodedSegment]:
        """The moments of the video, in order."""
        merger: Merger[Image] = Merger()
        found = False
        try:
            for time, picture in self._chosen():
                found = True
                for moment in merger.add(time, picture, thumbnail(picture)):
                    yield DecodedSegment(image=moment.picture, start_s=moment.start, end_s=moment.end)
        except MediaError as error:
            if not found:
                raise
            self._broken = str(error)
        if not found:
            raise MediaError(f"damaged video: none of its frames can be decoded ({self._broken or 'all are damaged'})")
        for moment in merger.finish(self._end_s):
            yield DecodedSegment(image=moment.picture, start_s=moment.start, end_s=moment.end)

    def final_info(self) -> MediaInfo:
        """The header's description, with what was missing in the file."""
        notes = [] if self._broken is None else [f"reading stopped at {self._end_s:.1f} s: {self._broken}"]
        if self._damaged:
            notes.append(f"{len(self._damaged)} damaged packets were left out")
        expected = self._info.duration_s
        if expected is not None and self._end_s < expected - max(2.0, 0.02 * expected) and not self._broken:
            notes.append(f"it ends at {self._end_s:.1f} s, although its header says {expected:.1f} s")
        # Headers may have none, and those of MPEG streams are guesses; a longer one may count the sound.
        duration = max(expected or 0.0, round(self._end_s, 3)) or None
        return replace(self._info, duration_s=duration, note="; ".join(notes) or None)

    def _chosen(self) -> Iterator[tuple[float, Image]]:
        """The frames to keep, as pictures with their times."""
        chooser: Chooser[Any] = Chooser(self._options.frame_interval_s)
        with ExitStack() as opened:
            container, stream = opened.enter_context(_opened(self._source, self._options))
            # The second opening is for its codec alone: it looks ahead at keyframes while the first is amid a group.
            _, scout = opened.enter_context(_opened(self._source, self._options, CodecUse.KEYFRAMES))
            show = Show(2 * self._options.min_side, pixel_shape(stream))
            for look in self._looks(container, stream, scout, chooser):
                for time, frame in chooser.choose(look.time, look.frame, look.small):
                    yield max(0.0, time), show.picture(frame)
            for time, frame in chooser.finish():
                yield max(0.0, time), show.picture(frame)

    def _looks(self, container: Any, stream: Any, scout: Any, chooser: Chooser[Any]) -> Iterator[Look]:
        """Decodes as little as the plans of the groups ask for, and what lies around a cut between keyframes."""
        interval = self._options.frame_interval_s
        last_wanted = last_look = -math.inf
        longest, last_small, key = 0, None, None
        for packets, group, following in self._groups(container, stream):
            plan = plan_group(group, interval, last_wanted, last_look)
            chooser.want(plan.wanted)
            last_wanted = plan.wanted[-1] if plan.wanted else last_wanted
            inside = GroupFrames(stream, packets, group, self._decode)
            if plan.decode != "nothing" and not group.continued:
                key = key or self._key_look(scout, packets[0])
            looks = chain(
                [key] if key is not None else [],
                inside.until(last_wanted) if plan.decode == "until wanted" or (plan.wanted and key is None) else [],
                inside.until(math.inf) if plan.decode == "all" else [],
            )
            for look in looks:
                last_look, last_small = look.time, look.small
                yield look
            key = None
            longest = max(longest, group.frames)
            if following is not None and group.end - last_look >= MIN_GAP * interval:
                key = self._key_look(scout, following)
            # A keyframe before its turn stands where the encoder saw the cut; others come some time after it.
            regular = group.frames > 0.9 * longest and group.end - last_look > EXACT_S
            if interval <= EXACT_INTERVAL_S and (
                following is None or (key is not None and regular and is_other_shot(last_small, key.small))
            ):
                for look in inside.until(math.inf):
                    last_look, last_small = look.time, look.small
                    yield look
            inside.close()

    def _key_look(self, scout: Any, packet: Any) -> Look | None:
        """One keyframe by itself, at once."""
        if not packet.is_keyframe:
            return None
        found = [*self._decode(scout, packet), *self._decode(scout, None)]
        scout.codec_context.flush_buffers()
        return found[0] if found else None

    def _decode(self, stream: Any, packet: Any) -> Iterator[Look]:
        """The sound frames that one more packet gives (``None``: the end)."""
        import av

        try:
            frames = stream.codec_context.decode(packet)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if isinstance(error, MemoryError):
                raise
            if packet is not None:
                self._damaged.add(packet.pts)
            return
        base = stream.time_base
        for frame in frames:
            if frame.pts is not None and not frame.is_corrupt:
                # Not frame.time: frames that come out at the end have lost their time base.
                yield Look(seconds_of(frame.pts, base), frame, glance(frame))

    def _groups(self, container: Any, stream: Any) -> Iterator[tuple[list[Any], Group, Any]]:
        """Packets up to the next keyframe, or as many as may be held at once; and the packet that follows."""
        packets: list[Any] = []
        size, start, latest, continued = 0, 0.0, 0.0, False
        for packet in self._packets(container, stream):
            time = seconds(packet)
            full = size > MAX_GROUP_BYTES or latest - start > MAX_GROUP_S
            if packets and (packet.is_keyframe or full):
                end = max(start, time) if packet.is_keyframe else latest
                continues = not packet.is_keyframe
                yield packets, Group(start, end, len(packets), continued, continues), packet
                packets, size, continued = [], 0, continues
            if not packets:
                start = latest = time
            packets.append(packet)
            size += packet.size
            latest = max(latest, time)
        if packets:
            yield packets, Group(start, max(latest, self._end_s), len(packets), continued), None

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """The packets of the stream, up to the first that cannot be read, with their times on one clock."""
        import av

        clock = Clock(origin(container, stream), stream)
        try:
            for packet in container.demux(stream):
                if packet.size and clock.set(packet):
                    self._end_s = max(self._end_s, seconds(packet) + clock.duration(packet))
                    yield packet
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._broken = _reason(error)

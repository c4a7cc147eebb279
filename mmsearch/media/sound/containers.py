"""Files with sound or subtitles, opened by PyAV: tags, embedded subtitles, and sound as a recogniser wants it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import MediaError
from mmsearch.media.formats import SOUND, VIDEO, formats
from mmsearch.media.sound.passages import Cue
from mmsearch.media.sound.subtitles import cleaned, normal_language

RATE = 16_000
"""Samples a second that recognisers of speech hear."""
BLOCK_S = 10.0
SILENT = 1e-4
"""Samples that are nowhere above this are silence: a step or three of 16 bits."""
_TEXT_CODECS = {"subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text"}
_UNSAID_S = 5.0
"""Seconds for which a subtitle is taken to stand whose packet does not say."""


@cache
def _demuxers() -> str:
    return ",".join(dict.fromkeys(row.reader for row in formats(VIDEO, SOUND)))


@contextmanager
def opened_container(path: Path, data: bytes | None = None) -> Iterator[Any]:
    """The container of a file, or of its bytes; FFmpeg's errors become reasons.

    Playlists and whatever else could make FFmpeg open other files or the network is not among the demuxers.
    """
    import av

    try:
        if (path.stat().st_size if data is None else len(data)) == 0:
            raise MediaError("empty file")
        source: Any = f"file:{path.absolute()}" if data is None else io.BytesIO(data)
        limits = {"format_whitelist": _demuxers(), "protocol_whitelist": "file"}
        with av.open(source, metadata_errors="replace", options=limits) as container:
            yield container
    except MediaError:
        raise
    except (MemoryError, RecursionError) as error:
        raise MediaError("there was not enough memory to decode this file") from error
    except (av.error.FFmpegError, OSError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError,
            ValueError) as error:  # fmt: skip
        raise MediaError(reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """What went wrong, in plain words."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, (PermissionError, FileNotFoundError, IsADirectoryError)):
        return f"cannot be read: {said}"
    if "Invalid data" in said or "End of file" in said:
        return f"damaged, or not what its name says: its structure cannot be read ({said})"
    return f"it cannot be read: {said}"


def embedded_subtitles(path: Path, data: bytes | None = None) -> list[list[Cue]]:
    """The cues of each track of text subtitles in a file, in the order of their times; pictures of text do not count.

    A file without such a track is not read beyond its header.

    Raises:
        MediaError: the file cannot be opened.
    """
    with opened_container(path, data) as container:
        tracks = [stream for stream in container.streams.subtitles if _has_text(stream)]
        if not tracks:
            return []
        cues: dict[int, list[Cue]] = {stream.index: [] for stream in tracks}
        shift = max(0.0, float(container.start_time or 0) / 1e6)
        for packet in _packets(container, tracks):
            cue = _cue(packet, shift)
            if cue is not None:
                cues[packet.stream.index].append(cue)
        return [sorted(own, key=lambda cue: cue[:2]) for own in cues.values() if own]


def _has_text(stream: Any) -> bool:
    context = stream.codec_context
    return context is not None and context.name in _TEXT_CODECS


def _packets(container: Any, streams: list[Any]) -> Iterator[Any]:
    """As many as can be read."""
    import av

    try:
        yield from (packet for packet in container.demux(streams) if packet.size and packet.pts is not None)
    except (av.error.FFmpegError, OSError, ValueError):
        return


def _cue(packet: Any, shift: float) -> Cue | None:
    import av

    stream = packet.stream
    try:
        found = packet.decode()
    except (av.error.FFmpegError, ValueError, UnicodeError, NotImplementedError):
        return None
    texts = [cleaned(_text_of(rect)) for rect in found]
    said = " ".join(text for text in texts if text)
    start = max(0.0, float(packet.pts * packet.time_base) - shift)
    length = float(packet.duration * packet.time_base) if packet.duration else _UNSAID_S
    language = normal_language(stream.metadata.get("language"))
    return Cue(round(start, 3), round(start + length, 3), said, language) if said else None


def _text_of(rect: Any) -> str:
    dialogue = getattr(rect, "dialogue", b"")
    if dialogue:
        return bytes(dialogue).decode("utf-8", "replace")
    line = bytes(getattr(rect, "ass", b"") or getattr(rect, "text", b"")).decode("utf-8", "replace")
    return line.split(",", 8)[-1]  # the fields of a line of ASS before its text


def has_sound(container: Any) -> bool:
    """Whether there is a track of sound that can be decoded."""
    return any(stream.codec_context is not None for stream in container.streams.audio)


def sound_of(path: Path, data: bytes | None = None, rate: int = RATE) -> Iterator[npt.NDArray[np.float32]]:
    """The sound of a file, as one channel of ``rate`` samples a second, −1 to 1, (n,) each, `BLOCK_S` seconds at once.

    Sample 0 is second 0 of the presentation: silence stands where a track begins later, or has a hole. Damaged packets
    are left out; what follows stays at its time.

    Raises:
        MediaError: the file cannot be opened, or there is no sound in it that can be decoded.
    """
    import av

    with opened_container(path, data) as container:
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not streams:
            raise MediaError("no sound in it")
        stream = streams[0]
        origin = float(container.start_time or 0) / 1e6
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        blocks = _Blocks(rate)
        for frame in _frames(container, stream):
            at = None if frame.time is None else frame.time - origin
            yield from blocks.put_at(at)
            for piece in resampler.resample(frame):
                yield from blocks.put(_samples(piece))
        for piece in resampler.resample(None):
            yield from blocks.put(_samples(piece))
        yield from blocks.rest()


def _samples(frame: Any) -> npt.NDArray[np.float32]:
    samples: npt.NDArray[np.float32] = frame.to_ndarray().reshape(-1)
    return samples


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """As many as can be decoded."""
    import av

    packets = iter(container.demux(stream))
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError, OSError, ValueError):
            return
        try:
            yield from packet.decode()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if isinstance(error, MemoryError):
                raise


class _Blocks:
    """Puts pieces of sound together to blocks of equal length."""

    LATE_S = 0.3
    """Seconds by which a frame may be off before silence is put in: clocks of containers are coarse."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._waiting: list[npt.NDArray[np.float32]] = []
        self._held = 0
        self._done = 0

    def put_at(self, at_s: float | None) -> Iterator[npt.NDArray[np.float32]]:
        """What comes next begins at that time."""
        missing = 0 if at_s is None else round(at_s * self._rate) - self._done
        if missing > self.LATE_S * self._rate:
            while missing > 0:
                part = min(missing, int(BLOCK_S * self._rate))
                yield from self.put(np.zeros(part, dtype=np.float32))
                missing -= part

    def put(self, samples: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
        self._waiting.append(samples)
        self._held += len(samples)
        self._done += len(samples)
        if self._held >= BLOCK_S * self._rate:
            yield from self.rest()

    def rest(self) -> Iterator[npt.NDArray[np.float32]]:
        if self._held:
            block = np.concatenate(self._waiting)
            self._waiting, self._held = [], 0
            yield block


def windows_of(
    blocks: Iterable[npt.NDArray[np.float32]], rate: int, window_s: float
) -> Iterator[tuple[float, npt.NDArray[np.float32]]]:
    """Sound cut into windows of ``window_s`` seconds, each with the second at which it begins; those in which nothing
    can be heard are left out, and so is a rest of less than a second of a longer recording.
    """
    size, start = round(window_s * rate), 0
    held = np.zeros(0, dtype=np.float32)
    for block in blocks:
        held = np.concatenate([held, np.nan_to_num(block, posinf=1.0, neginf=-1.0)])  # WAV can hold what is no number
        while len(held) >= size:
            window, held = held[:size], held[size:]
            if np.abs(window).max() > SILENT:
                yield start / rate, window
            start += size
    if len(held) and (start == 0 or len(held) >= rate) and np.abs(held).max() > SILENT:
        yield start / rate, held

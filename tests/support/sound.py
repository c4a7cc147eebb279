"""Small recordings and videos with sound and subtitles, made by PyAV; speech by espeak-ng, noise and tunes by numpy."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.support.colours import COLOURS

RATE = 16_000
CODECS = {
    ".mp3": "libmp3lame", ".m4a": "aac", ".aac": "aac", ".wav": "pcm_s16le", ".flac": "flac", ".ogg": "libopus",
    ".opus": "libopus", ".wma": "wmav2", ".mka": "aac", ".aiff": "pcm_s16be", ".mp4": "aac", ".mkv": "aac",
}  # fmt: skip


def tune(seconds: float, hertz: float = 220.0) -> np.ndarray:
    at = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hertz * at)).astype(np.float32)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def spoken(text: str, voice: str = "en-us", speed: int = 150) -> np.ndarray:
    """Speech of espeak-ng; the test is skipped where that is not installed."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("needs espeak-ng, which makes the speech")
    data = subprocess.run(
        ["espeak-ng", "-v", voice, "-s", str(speed), "--stdout", text], capture_output=True, check=True
    ).stdout
    with wave.open(io.BytesIO(data)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(1 << 30), np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray().reshape(-1) for part in parts]).astype(np.float32)


def save_sound(path: Path, samples: float | np.ndarray, *, cover: bool = False, **tags: str) -> Path:
    """A recording of some seconds of a tune, or of samples."""
    samples = tune(samples) if isinstance(samples, float) else samples
    with av.open(str(path), "w", format={".aac": "adts", ".wma": "asf"}.get(path.suffix)) as container:
        container.metadata.update(tags)
        stream = container.add_stream(CODECS[path.suffix], rate=48_000)
        stream.layout, stream.bit_rate = "mono", 96_000
        picture = container.add_stream("mjpeg", rate=1) if cover else None
        if picture is not None:
            from av.stream import Disposition

            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            image = Image.new("RGB", (64, 64), COLOURS["red"])
            container.mux(picture.encode(av.VideoFrame.from_image(image)))
            container.mux(picture.encode(None))
        _encode(container, stream, samples)
    return path


def _encode(container: object, stream: object, samples: np.ndarray) -> None:
    resampler = av.AudioResampler(
        format=stream.format, layout="mono", rate=48_000, frame_size=stream.frame_size or 1024
    )
    for start in range(0, len(samples), RATE):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + RATE], format="flt", layout="mono")
        frame.sample_rate, frame.pts = RATE, start
        for part in resampler.resample(frame):
            container.mux(stream.encode(part))
    for part in resampler.resample(None):
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def save_video(
    path: Path, colours: Sequence[str], each_s: float = 3.0, *, sound: np.ndarray | None = None,
    subtitles: Sequence[tuple[float, float, str]] = (), language: str = "eng",
) -> Path:  # fmt: skip
    """A video that shows colours one after another, with sound and a track of subtitles where there are some."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = 5
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        track = container.add_stream(CODECS[path.suffix], rate=48_000) if sound is not None else None
        source = path.with_suffix(".tmp.srt")
        texts = None
        if subtitles:
            source.write_text(srt(subtitles), encoding="utf-8")
            with av.open(str(source)) as given:
                texts = container.add_stream_from_template(given.streams.subtitles[0])
            source.unlink()
        if track is not None:
            track.layout = "mono"
        if texts is not None:
            texts.metadata["language"] = language
        for number in range(round(rate * each_s * len(colours))):
            image = Image.new("RGB", (64, 64), COLOURS[colours[int(number / rate / each_s)]])
            frame = av.VideoFrame.from_image(image)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            _encode(container, track, sound)
        for start, end, text in subtitles:
            packet = av.Packet(text.encode())
            packet.stream, packet.time_base = texts, Fraction(1, 1000)
            packet.pts = packet.dts = round(1000 * start)
            packet.duration = round(1000 * (end - start))
            container.mux(packet)
    return path


def srt(rows: Sequence[tuple[float, float, str]]) -> str:
    def stamp(seconds: float) -> str:
        thousandths = round(1000 * seconds)
        return f"{thousandths // 3_600_000:02}:{thousandths // 60_000 % 60:02}:{thousandths // 1000 % 60:02}," + (
            f"{thousandths % 1000:03}"
        )

    return "\n".join(f"{n}\n{stamp(a)} --> {stamp(b)}\n{text}\n" for n, (a, b, text) in enumerate(rows, 1))

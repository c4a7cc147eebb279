"""How fast files become model inputs: ``python benchmarks/decode_rates.py``.

1. 12-megapixel JPEGs to a 224-pixel model input, one core: this decoder against plain Pillow (decode whole,
   turn, resize), interleaved in one process; with the cosine between the two inputs and, where the built-in
   encoder can be opened, between the two embeddings.
2. A 720p H.264 video (30 frames/s, 3 Mbit/s, a keyframe at least every 250 frames): times real time, default
   sampling and keyframes only, on two threads; without any encoder.
3. The peak of memory for a video of one minute and one of ``--hours`` hours, each in a process of its own, and
   the time error of its scenes, whose times are known.

The video is made of the photos, moved and with noise, a cut every ten seconds. Photos as in common/photos.py.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from common.output import command_line, publish
from common.photos import pictures, write_jpegs
from PIL import Image, ImageOps

from mmsearch.media.base import DecodeOptions
from mmsearch.media.image.reader import ImageDecoder
from mmsearch.media.video.reader import VideoDecoder

SIDE = 224
SCENE_S = 10
ROUNDS = 3
BARS = {"jpeg_ratio": 4.0, "embedding_cosine": 0.995, "video_default": 20.0, "video_keyframes": 150.0, "memory": 1.2}


def to_input(image: Image.Image) -> np.ndarray:
    """The usual end of preprocessing: shorter side to 224 pixels, the middle square."""
    return np.asarray(ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)


def plain(path: Path) -> Image.Image:
    """What most programs do, with the orientation that some of them forget."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def ours(path: Path) -> Image.Image:
    """What the decoder of this package does."""
    [segment] = ImageDecoder().decode(path, DecodeOptions(min_side=SIDE)).segments
    assert segment.image is not None
    return segment.image


def measure_jpegs(count: int, folder: Path) -> dict[str, Any]:
    """Both ways to decode, in turns, file by file, the best of three, in seconds of this thread."""
    paths = write_jpegs(folder, count, (4000, 3000))
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    cosines, pairs = [], []
    for path in paths:
        inputs, times = {}, {"plain": [], "ours": []}
        for _ in range(ROUNDS):
            for name, read in (("plain", plain), ("ours", ours)):
                start = time.thread_time()
                inputs[name] = to_input(read(path))
                times[name].append(time.thread_time() - start)
        for name, values in times.items():
            seconds[name].append(min(values))
        a, b = (inputs[name].ravel() - 128 for name in ("plain", "ours"))
        cosines.append(float(a @ b / np.sqrt((a @ a) * (b @ b))))
        pairs.append((plain(path), ours(path)))
    rates = {name: 1 / statistics.median(values) for name, values in seconds.items()}
    return {
        "images": count,
        "plain_pillow_images_per_core_s": round(rates["plain"], 2),
        "images_per_core_s": round(rates["ours"], 2),
        "ratio": round(rates["ours"] / rates["plain"], 2),
        "input_cosine_min": round(min(cosines), 5),
        "embedding_cosine_min": embedding_cosine(pairs),
    }


def embedding_cosine(pairs: list[tuple[Image.Image, Image.Image]]) -> float | None:
    """The smallest cosine between embeddings of the two ways to decode, by the built-in encoder."""
    try:
        from mmsearch.models.encoders import open_encoder

        encoder = open_encoder("builtin")
    except Exception as error:
        print(f"no built-in encoder here: {error}")
        return None
    a, b = (encoder.encode_images([pair[side] for pair in pairs]) for side in (0, 1))
    return round(float((a * b).sum(axis=1).min()), 5)


def write_video(path: Path, seconds: int, photos: int = 12) -> None:
    """1280 × 720, 30 frames/s, 3 Mbit/s; every ten seconds another photo, slowly moved."""
    sources = [np.asarray(picture) for picture in pictures(photos, (1400, 800))]
    random = np.random.default_rng(0)
    noise = random.integers(-6, 7, (8, 720, 1280, 1), dtype=np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.bit_rate, stream.codec_context.time_base = 3_000_000, Fraction(1, 30)
        stream.options = {"preset": "fast", "g": "250"}
        for number in range(seconds * 30):
            scene, step = divmod(number, SCENE_S * 30)
            left, top = step * 110 // (SCENE_S * 30), step * 70 // (SCENE_S * 30)
            view = sources[scene % photos][top : top + 720, left : left + 1280]
            pixels = np.clip(view + noise[number % 8], 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))


def repeat_video(source: Path, path: Path, times: int) -> None:
    """The packets of a video over and over, with later and later times; nothing is encoded again."""
    with av.open(str(path), "w") as output:
        target = None
        for turn in range(times):
            with av.open(str(source)) as container:
                stream = container.streams.video[0]
                target = target or output.add_stream_from_template(stream)
                shift = round(turn * container.duration / av.time_base / stream.time_base)
                for packet in container.demux(stream):
                    if packet.dts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, target
                        output.mux(packet)


def read_video(path: Path, interval: float) -> tuple[float, list[float]]:
    """Seconds of the wall, and the starts of all segments. Pictures are dropped as an indexing run would drop them."""
    start = time.perf_counter()
    segments = VideoDecoder().decode(path, DecodeOptions(min_side=SIDE, frame_interval_s=interval)).segments
    starts = [segment.start_s or 0.0 for segment in segments]
    return time.perf_counter() - start, starts


def measure_video(path: Path, seconds: int, rounds: int = 5) -> dict[str, Any]:
    """The best of several readings, for both ways to sample."""
    figures: dict[str, Any] = {"seconds": seconds, "megabytes": round(path.stat().st_size / 1e6, 1)}
    for name, interval in (("default", 2.0), ("keyframes_only", 10.0)):
        walls, cpus = [], []
        for _ in range(rounds):
            start = time.process_time()
            walls.append(read_video(path, interval)[0])
            cpus.append(time.process_time() - start)
        figures[f"{name}_times_real_time"] = round(seconds / min(walls), 1)
        figures[f"{name}_cpu_s"] = round(min(cpus), 3)
    return figures


def _peak(path: str, answers: Any) -> None:
    took, starts = read_video(Path(path), 2.0)
    answers.put((peak_mib(), took, starts))


def peak_mib() -> float:
    """The peak of this process's memory. Linux keeps ``ru_maxrss`` of the parent over exec, so not that there."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_alone(path: Path) -> tuple[float, float, list[float]]:
    """Peak memory in MiB, seconds and segment starts of one reading in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_peak, args=(str(path), answers))
    process.start()
    answer: tuple[float, float, list[float]] = answers.get()
    process.join()
    return answer


def measure_length(minute: Path, hours: float, folder: Path) -> dict[str, Any]:
    """Peak memory by length, and how far from a scene's beginning the nearest segment starts."""
    long = folder / "long.mp4"
    repeat_video(minute, long, round(hours * 60))
    short_peak, _, _ = measure_alone(minute)
    long_peak, took, starts = measure_alone(long)
    scenes = np.arange(0, round(hours * 3600), SCENE_S)
    found = np.asarray(starts)
    errors = [float(np.abs(found - scene).min()) for scene in scenes]
    return {
        "hours": hours,
        "peak_mib_one_minute": round(short_peak, 1),
        "peak_mib": round(long_peak, 1),
        "peak_ratio": round(long_peak / short_peak, 3),
        "times_real_time": round(hours * 3600 / took, 1),
        "segments": len(starts),
        "largest_time_error_s": round(max(errors), 3),
    }


def main() -> None:
    """Parses, measures, writes results/decode_rates.json."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--hours", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        minute = folder / "minute.mp4"
        write_video(minute, 60)
        figures = {
            "jpeg_12_megapixels": measure_jpegs(arguments.images, folder / "photos"),
            "video_720p": measure_video(minute, 60),
            "video_long": measure_length(minute, arguments.hours, folder),
            "bars": BARS,
        }
    publish("decode_rates", figures, arguments)


if __name__ == "__main__":
    main()

"""Photos for benchmarks: real ones where there are some, multiplied by pixel noise so that no two files are equal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mmsearch.core.types import MediaInfo
from mmsearch.store.base import NewDocument


def real_photos() -> list[Path]:
    """Photos of ``$MMSEARCH_TEST_DATA/photos/images``; else those that scikit-image carries; may be none."""
    folder = os.environ.get("MMSEARCH_TEST_DATA")
    if folder:
        return sorted((Path(folder) / "photos" / "images").glob("*.jpg"))
    try:
        import skimage
    except ImportError:
        return []
    carried = Path(skimage.__file__).parent / "data"
    return sorted(
        path for path in carried.iterdir() if path.suffix in {".jpg", ".png"} and path.stat().st_size > 20_000
    )


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> Iterator[Image.Image]:
    """``count`` different RGB pictures of ``size`` (width, height): photos, resized, with their own pixel noise.

    Without any photos, smooth random fields stand in: as large and as hard to decode, though of nothing.
    """
    sources = real_photos()
    random = np.random.default_rng(seed)
    cache: dict[int, np.ndarray] = {}
    for number in range(count):
        slot = number % max(1, min(len(sources), 128))
        if slot not in cache:
            cache[slot] = np.asarray(_source(sources, slot, random).resize(size, Image.Resampling.BICUBIC))
        noise = random.integers(-3, 4, (size[1], size[0], 1), dtype=np.int16)
        yield Image.fromarray(np.clip(cache[slot] + noise, 0, 255).astype(np.uint8))


def write_videos(
    folder: Path, count: int, size: tuple[int, int] = (320, 240), seconds: int = 12, seed: int = 0
) -> None:
    """Writes ``count`` MP4 files at 10 frames a second; every two seconds another picture comes."""
    import av

    folder.mkdir(parents=True, exist_ok=True)
    shots = pictures(count * seconds // 2, size, seed)
    for number in range(count):
        with av.open(str(folder / f"{number:04d}.mp4"), "w") as file:
            stream = file.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for picture in [next(shots) for _ in range(seconds // 2)]:
                for _ in range(20):
                    file.mux(stream.encode(av.VideoFrame.from_image(picture)))
            file.mux(stream.encode())


def _source(sources: list[Path], slot: int, random: np.random.Generator) -> Image.Image:
    if sources:
        with Image.open(sources[slot]) as image:
            return image.convert("RGB")
    return Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))


def write_jpegs(folder: Path, count: int, size: tuple[int, int], seed: int = 0, quality: int = 90) -> list[Path]:
    """Writes ``count`` JPEG files of ``size`` pixels into ``folder``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, picture in enumerate(pictures(count, size, seed)):
        paths.append(folder / f"{number:05d}.jpg")
        picture.save(paths[-1], quality=quality)
    return paths


def invented_photo(number: int, day: int, *, is_dated: bool) -> NewDocument:
    """What a catalogue knows of a photo that no file has: taken ``day`` days after 2004-01-01, if it says so."""
    date = str(np.datetime64("2004-01-01T10:00:00") + np.timedelta64(day, "D")) if is_dated else None
    info = MediaInfo(4000, 3000, taken_at=date, camera=f"Camera {number % 12}")
    path = f"{2004 + day // 365}/{number % 25}/IMG_{number}.jpg"
    mtime = (1_072_915_200 + day * 86_400) * 10**9
    return NewDocument(
        path, "image", number.to_bytes(4, "big"), root="/photos", info=info, size=number, mtime_ns=mtime
    )  # fmt: skip

"""What the image encoder is shown of a picture: as it is, or a random crop of it, mirrored, its colours changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmsearch.training.dual_encoder import DualEncoder, Pixels
from mmsearch.training.options import ViewOptions
from mmsearch.training.pairs import ImageSource


def plain_view(network: DualEncoder, source: ImageSource, size: int | None = None) -> Pixels:
    """The picture as the exported encoder will see it, but for the number of its pixels."""
    return network.view(source.read(network.image_size), None, size)


def random_view(network: DualEncoder, source: ImageSource, options: ViewOptions, seed: Sequence[int]) -> Pixels:
    """A view that depends on ``seed`` alone, whichever thread makes it."""
    random = np.random.default_rng(list(seed))
    image = source.read(network.image_size)
    width, height = image.size
    area = random.uniform(options.smallest, 1.0) * width * height
    ratio = width / height * math.exp(random.uniform(-1, 1) * math.log(options.aspect))
    crop_width, crop_height = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    left, top = random.uniform(0, width - crop_width), random.uniform(0, height - crop_height)
    pixels = network.view(image, (left, top, left + crop_width, top + crop_height), options.size)
    if random.random() < options.mirror:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    return _recoloured(pixels, options.colour, random)


def _recoloured(pixels: Pixels, amount: float, random: np.random.Generator) -> Pixels:
    if amount == 0:
        return pixels
    brightness, contrast = random.uniform(1 - amount, 1 + amount, 2)
    saturation = random.uniform(1 - 1.5 * amount, 1 + 1.5 * amount)
    values = pixels.astype(np.float32) * brightness
    values = (values - values.mean()) * contrast + values.mean()
    grey = values.mean(2, keepdims=True)
    recoloured: Pixels = np.clip((values - grey) * saturation + grey, 0, 255).astype(np.uint8)
    return recoloured


class ImageFeed:
    """Gives ``DualEncoder.image_start`` of any rows of a set of images, in any epoch; equal seeds, equal values.

    ``augment`` ``None`` shows pictures as they are, and keeps what the frozen part gives for all of them.
    """

    def __init__(
        self,
        network: DualEncoder,
        images: Sequence[ImageSource],
        augment: ViewOptions | None,
        cache: Path,
        *,
        seed: int,
        device: torch.device,
        workers: int = 2,
        batch: int = 32,
        progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    ) -> None:
        self.network, self.sources, self.augment = network, images, augment
        self.seed, self.device, self.batch, self.progress = seed, device, batch, progress
        self._pool = ThreadPoolExecutor(workers)
        self._kept: list[list[np.ndarray]] = []
        for number in range(1 if augment is None else augment.cached):
            self._kept.append(self._keep(number, cache))

    def close(self) -> None:
        """Stops the threads that decode."""
        self._pool.shutdown()

    def rows(self, rows: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        """What the encoder's start gives for these rows: tensors of ``len(rows)`` rows, on the device."""
        if not self._kept:
            return self._start(list(rows), lambda row: self._fresh(row, epoch))
        random = np.random.default_rng([self.seed, 2, epoch])
        choice = random.integers(len(self._kept), size=len(self.sources))
        parts = []
        for number in range(len(self._kept[0])):
            values = np.stack([self._kept[choice[row]][number][row] for row in rows])
            parts.append(torch.from_numpy(values).to(self.device))
        return tuple(parts)

    def plain(self) -> Iterator[tuple[Tensor, ...]]:
        """All images in order, in batches, as they are: for feeds without augmentation."""
        for start in range(0, len(self.sources), self.batch):
            yield self.rows(np.arange(start, min(start + self.batch, len(self.sources))), 0)

    def _fresh(self, row: int, epoch: int) -> Pixels:
        assert self.augment is not None
        return random_view(self.network, self.sources[row], self.augment, (self.seed, 1, epoch, row))

    def _view(self, row: int, number: int) -> Pixels:
        if number < 2:
            plain = plain_view(self.network, self.sources[row], None if self.augment is None else self.augment.size)
            return np.ascontiguousarray(plain[:, ::-1]) if number else plain
        assert self.augment is not None
        return random_view(self.network, self.sources[row], self.augment, (self.seed + number - 1, row))

    def _start(self, rows: Sequence[int], view: Callable[[int], Pixels]) -> tuple[Tensor, ...]:
        pixels = np.stack(list(self._pool.map(view, rows)))
        return self.network.image_start(torch.from_numpy(pixels).to(self.device))

    def _keep(self, number: int, cache: Path) -> list[np.ndarray]:
        """View ``number`` of every image through the frozen part, in half precision, mapped from the disk."""
        cache.mkdir(parents=True, exist_ok=True)
        done = cache / f"view{number}.done"
        if not done.exists():
            self._write(number, cache)
            done.touch()
        files = sorted(cache.glob(f"view{number}-*.npy"))
        return [np.load(file, mmap_mode="r") for file in files]

    def _write(self, number: int, cache: Path) -> None:
        files: list[np.ndarray] = []
        total = len(self.sources)
        for begin in range(0, total, self.batch):
            rows = range(begin, min(begin + self.batch, total))
            with torch.no_grad():
                parts = self._start(rows, lambda row: self._view(row, number))
            values = [part.cpu().numpy() for part in parts]
            values = [v.astype(np.float16) if v.dtype.kind == "f" else v for v in values]
            if not files:
                files = [
                    np.lib.format.open_memmap(cache / f"view{number}-{part}.npy", "w+", v.dtype, (total, *v.shape[1:]))
                    for part, v in enumerate(values)
                ]
            for file, value in zip(files, values, strict=True):
                file[rows.start : rows.stop] = value
            self.progress(f"view {number + 1}", rows.stop, total)

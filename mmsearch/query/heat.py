"""Where in a picture a question matched, as a heat map.

Three sources: what each patch adds to the score, in encoders that can tell; what a reranker loses without a place; and
for any encoder, how well windows match on their own and what covering a square takes away.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.models.rerankers.base import Reranker

if TYPE_CHECKING:
    from PIL.Image import Image

HeatSource = Literal["patches", "reranker", "windows"]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as fractions of the sides."""
GRID = 24
"""Cells of a heat map on each side."""
WINDOWS = ((1 / 3, 5, 0.5), (0.22, 6, 1.0))
"""Windows that are encoded as pictures of their own: side as a share of the picture's, how many along each side, and
the weight of their map."""
COVERS = (0.3, 4, 0.5)
"""Squares that are covered with grey, to see how much less the rest of the picture matches: the same three numbers."""
CENTRE = 1.0
"""How many standard deviations of a map the middle of the picture is ahead of its corners: that is where people put
what they photograph. All of these were chosen on the pointing game of benchmarks/query_quality.py."""


class Heat(NamedTuple):
    """A heat map float32 (``GRID``, ``GRID``), 0 to 1, rows from the top; and what it was read from."""

    map: FloatArray
    source: HeatSource


def heat_of(
    encoder: Encoder, picture: Image, vector: FloatArray, text: str = "", reranker: Reranker | None = None
) -> Heat:
    """Where in a picture a question matches, by the best means that there is.

    With a ``reranker`` whose tokens have places, by what it loses of its score for ``text`` when they are taken away;
    else by what the patches add, where the encoder can tell (`Encoder.patch_scores`); else by `windows_map`.
    """
    if reranker is not None and text and (cells := places_lost(reranker, picture, text)) is not None:
        return Heat(stretched(cells), "reranker")
    patches = encoder.patch_scores(picture, vector)
    if patches is not None:
        return Heat(stretched(patches), "patches")
    return Heat(windows_map(encoder, picture, vector), "windows")


def places_lost(reranker: Reranker, picture: Image, text: str) -> FloatArray | None:
    """How much of a reranker's score each place of its grid carries, (rows, columns).

    The score falls by so much when the place and those next to it are replaced by the mean of all. ``None`` where the
    reranker's tokens do not lie in a square, or stand for no places.
    """
    shape = reranker.spec.token_shape
    side = math.isqrt(shape[0]) if len(shape) == 2 else 0
    if not reranker.tokens_have_places or side < 2 or side * side != shape[0]:
        return None
    tokens = reranker.image_tokens([picture])[0]
    without = np.repeat(tokens[None], side * side, axis=0)
    across = np.abs(np.subtract.outer(np.arange(side), np.arange(side))) <= 1
    hidden = (across[:, None, :, None] & across[None, :, None, :]).reshape(side * side, side * side)
    without[hidden] = tokens.astype(np.float32).mean(axis=0).astype(tokens.dtype)
    scores = reranker.score_tokens(text, np.concatenate([tokens[None], without]))
    lost: FloatArray = (scores[0] - scores[1:]).reshape(side, side)
    return lost


def stretched(cells: FloatArray) -> FloatArray:
    """Figures of a grid of cells, (rows, columns), as a heat map: interpolated, and 0 to 1."""
    across = _between(cells.shape[1])
    down = _between(cells.shape[0])
    return _from_0_to_1(down @ cells.astype(np.float64) @ across.T)


def _between(cells: int) -> npt.NDArray[np.float64]:
    """(``GRID``, cells): what each of the cells counts at each place of the map, by linear interpolation."""
    places = (np.arange(GRID) + 0.5) / GRID * cells - 0.5
    distances = np.abs(np.clip(places, 0, cells - 1)[:, None] - np.arange(cells)[None, :])
    counts: npt.NDArray[np.float64] = np.maximum(0.0, 1 - distances)
    return counts


def _from_0_to_1(total: npt.NDArray[np.float64]) -> FloatArray:
    low, high = float(total.min()), float(total.max())
    heat: FloatArray = ((total - low) / max(high - low, 1e-9)).astype(np.float32)
    return heat


def windows_map(encoder: Encoder, picture: Image, vector: FloatArray) -> FloatArray:
    """Where in a picture a question matches, float32 (``GRID``, ``GRID``), 0 to 1, for any encoder.

    Three maps are standardised and added: how well windows of two sizes match on their own, and how much is lost
    when a square is covered. Each window spreads its figure over its place with a Gaussian.
    """
    boxes = [windows(side, count) for side, count, _ in WINDOWS]
    covers = windows(*COVERS[:2])
    pictures = [_cropped(picture, box) for some in boxes for box in some]
    pictures += [_covered(picture, box) for box in covers]
    scores = encoder.encode_images(pictures) @ vector
    cells = (np.arange(GRID) + 0.5) / GRID - 0.5
    total = CENTRE * np.exp(-(cells**2)[None, :] / 0.18 - (cells**2)[:, None] / 0.18)
    start = 0
    for some, sign, weight in [
        *((b, 1, w) for b, (_, _, w) in zip(boxes, WINDOWS, strict=True)),
        (covers, -1, COVERS[2]),
    ]:
        layer = _spread(sign * scores[start : start + len(some)], some)
        total += weight * (layer - layer.mean()) / (layer.std() + 1e-6)
        start += len(some)
    return _from_0_to_1(total)


def _spread(scores: FloatArray, boxes: list[Box]) -> npt.NDArray[np.float64]:
    """Figures of windows to a map: at each cell the mean of all windows, the nearest counting most."""
    weights = np.stack([_bump(box) for box in boxes])
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    spread: npt.NDArray[np.float64] = np.tensordot(scores, weights, 1) / weights.sum(axis=0)
    return spread


def _cropped(picture: Image, box: Box) -> Image:
    return picture.crop(_pixels(picture, box))


def _covered(picture: Image, box: Box) -> Image:
    """The picture with a square of its mean colour."""
    from PIL.Image import Resampling

    covered = picture.copy()
    colour = picture.resize((1, 1), Resampling.BOX).getpixel((0, 0))
    covered.paste(colour, _pixels(picture, box))  # type: ignore[arg-type]
    return covered


def _pixels(picture: Image, box: Box) -> tuple[int, int, int, int]:
    left, top = int(box[0] * picture.width), int(box[1] * picture.height)
    return left, top, max(left + 1, int(box[2] * picture.width)), max(top + 1, int(box[3] * picture.height))


def windows(side: float, count: int) -> list[Box]:
    """Squares of a share of both sides, ``count`` × ``count`` of them: left, top, right, bottom as fractions."""
    starts = np.linspace(0, 1 - side, count)
    return [(float(x), float(y), float(x) + side, float(y) + side) for y in starts for x in starts]


def _bump(box: Box) -> npt.NDArray[np.float64]:
    """A Gaussian in the middle of a window, a quarter of its side wide, on the grid of the map."""
    left, top, right, bottom = box
    cells = (np.arange(GRID) + 0.5) / GRID
    spread = (right - left) / 4
    across = np.exp(-0.5 * ((cells - (left + right) / 2) / spread) ** 2)
    down = np.exp(-0.5 * ((cells - (top + bottom) / 2) / spread) ** 2)
    bump: npt.NDArray[np.float64] = down[:, None] * across[None, :]
    return bump


def overlay(picture: Image, heat: FloatArray, strength: float = 0.65) -> Image:
    """The picture in grey under the heat map: from blue over yellow to red where it matches best."""
    from PIL import Image as Images

    grey = picture.convert("L").convert("RGB")
    stops = np.array([0.0, 0.35, 0.7, 1.0])
    colours = np.array([(20, 30, 90), (30, 120, 200), (250, 220, 60), (220, 30, 30)], dtype=np.float64)
    smooth = Images.fromarray((255 * heat).astype(np.uint8)).resize(grey.size, Images.Resampling.BICUBIC)
    level = np.asarray(smooth, dtype=np.float64) / 255
    tint = np.stack([np.interp(level, stops, colours[:, channel]) for channel in range(3)], axis=-1)
    share = (strength * np.clip(level * 1.4, 0.15, 1.0))[..., None]
    mixed = (1 - share) * np.asarray(grey, dtype=np.float64) + share * tint
    return Images.fromarray(mixed.astype(np.uint8))

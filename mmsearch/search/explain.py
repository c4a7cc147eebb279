"""Why a document was found: the parts of its score, the words it shares, and where in the picture it matched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmsearch.catalogue.matching import words_of_document
from mmsearch.encoders.base import Encoder, FloatArray
from mmsearch.errors import UsageError
from mmsearch.index import IndexDirectory
from mmsearch.search.evidence import content_words, lines_read
from mmsearch.search.options import SearchOptions
from mmsearch.search.question import EncodedQuestion, load_picture
from mmsearch.search.searcher import Searcher
from mmsearch.types import Modality

if TYPE_CHECKING:
    from PIL.Image import Image

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


@dataclass(frozen=True, eq=False)
class Explanation:
    """``parts`` sum to ``total``, by which documents are ordered. ``words``: words of the question in what is
    written about the document, by place (path, folder, caption, description, text; picture: what was read in it).
    ``excluded``: phrases of the question that it shows too much of. ``allowed``: whether the question's filters say
    yes.

    ``heat`` float32 (``GRID``, ``GRID``), 0 to 1, rows from the top: how well each part of the picture matches;
    ``None`` for texts. ``time_s``: the frame of a video that it is about.
    """

    path: str
    modality: Modality
    parts: Mapping[str, float]
    relevance: float | None
    words: Mapping[str, tuple[str, ...]]
    excluded: tuple[str, ...]
    allowed: bool
    heat: FloatArray | None
    time_s: float | None

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return float(sum(self.parts.values()))


def explain(
    index: IndexDirectory,
    searcher: Searcher,
    encoder: Encoder,
    asked: EncodedQuestion,
    path: Path,
    options: SearchOptions = SearchOptions(),  # noqa: B008
    *,
    with_heat: bool = True,
) -> Explanation:
    """Explains what a question and an indexed file have to do with each other.

    Raises:
        UsageError: the file is not in the index, the question has nothing to compare with, or (for the heat map)
            the file cannot be read.
    """
    if asked.is_listing:
        raise UsageError("the question has only filters: there is nothing to explain")
    document = document_at(index, path)
    one, relevance, excluded, allowed = searcher.judge(asked, options, document)
    heat = None
    if with_heat and one.segment.modality != "text":
        picture = load_picture(path, 640, at_s=one.segment.start_s)
        heat = heat_map(encoder, picture, searcher.vector_of(asked))
    wanted = content_words(asked.question.texts)
    written = words_of_document(index.catalogue, document)
    if one.segment.text:
        written["text"] = one.segment.text
    if read := lines_read(index.catalogue, index.tower().id, one.segment.row, wanted):
        written["picture"] = read
    shared = {place: tuple(word for word in wanted if word in content_words([text])) for place, text in written.items()}
    return Explanation(
        path=str(path),
        modality=one.segment.modality,
        parts=one.parts,
        relevance=relevance,
        words={place: found for place, found in shared.items() if found},
        excluded=excluded,
        allowed=allowed,
        heat=heat,
        time_s=one.segment.start_s,
    )


def document_at(index: IndexDirectory, path: Path) -> int:
    """The id of the document at a path.

    Raises:
        UsageError: there is none.
    """
    wanted = Path(path).expanduser().absolute()
    for place in (wanted, wanted.resolve()):
        for root in index.catalogue.roots():
            folder = index.root_path(root)
            if folder not in place.parents:
                continue
            row = index.catalogue.sql.execute(
                "SELECT id FROM documents WHERE root_id = ? AND path = ?",
                [root.id, place.relative_to(folder).as_posix()],
            ).fetchone()
            if row is not None:
                return int(row[0])
    raise UsageError(f"{path} is not in the index: index it first")


def heat_map(encoder: Encoder, picture: Image, vector: FloatArray) -> FloatArray:
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
    low, high = float(total.min()), float(total.max())
    heat: FloatArray = ((total - low) / max(high - low, 1e-9)).astype(np.float32)
    return heat


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

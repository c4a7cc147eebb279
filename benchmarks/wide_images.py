"""What becomes of very wide and very tall pictures: ``python benchmarks/wide_images.py [--cases …]``.

Panoramas whose contents are known are photos of ``$MMSEARCH_TEST_DATA/photos`` set side by side, or on top of each
other; all that its photos show is searched for by name ("a photo of a NAME."). Each way to treat them is one gallery:

- now one vector of the whole, its aspect ratio cut to the root (what one vector did before), of the centre square,
  or of the whole squeezed into a square; the mean of the vectors of the parts;
- a vector for each part, the best one of a picture counting: squares without and with overlap, pieces of 4:3, the whole
  beside the squares, and `mmsearch.media.image.wide.parts`, which is what indexing does.

``mixed`` galleries hold as many plain photos again, so that pictures with several vectors compete with others.
``strips`` are the centroids of single photos, cut to an aspect ratio: there is nothing to gain there, only to lose.
mAP over object names, and the share of names that the first / one of the first five answers shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common.environment import data_folder
from common.output import command_line, publish
from PIL import Image

from mmsearch.evaluate.metrics import average_precision
from mmsearch.media.image import wide
from mmsearch.models.encoders.base import EncoderOptions, FloatArray
from mmsearch.models.encoders.builtin import BuiltinEncoder

SIDE = 480
CASES = {
    "2 wide": (2, False, False), "3 wide": (3, False, False), "5 wide": (5, False, False), "2 tall": (2, True, False),
    "3 tall": (3, True, False), "5 tall": (5, True, False), "3 wide, mixed": (3, False, True),
    "5 wide, mixed": (5, False, True),
}  # fmt: skip
STRIPS = {"strips of 2.2": 2.2, "strips of 3": 3.0}
Picture = tuple[Image.Image, set[str]]


def photos(folder: Path) -> list[tuple[Image.Image, list[list[Any]]]]:
    """Each photo with its boxes: name and left, top, right, bottom as fractions."""
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    return [(Image.open(folder / "images" / row["image"]).convert("RGB"), row["boxes"]) for row in rows]


def joined(pictures: list[Image.Image], tall: bool) -> Image.Image:
    """Side by side at one height, or below each other at one width."""
    if tall:
        scaled = [one.resize((SIDE, round(one.height * SIDE / one.width))) for one in pictures]
        whole = Image.new("RGB", (SIDE, sum(one.height for one in scaled)))
    else:
        scaled = [one.resize((round(one.width * SIDE / one.height), SIDE)) for one in pictures]
        whole = Image.new("RGB", (sum(one.width for one in scaled), SIDE))
    at = 0
    for one in scaled:
        whole.paste(one, (0, at) if tall else (at, 0))
        at += one.height if tall else one.width
    return whole


def collages(taken: list[tuple[Image.Image, list[list[Any]]]], each: int, tall: bool, mixed: bool) -> Iterator[Picture]:
    """All photos dealt at random into groups of ``each``; if ``mixed``, half of them stay single photos."""
    order = list(np.random.default_rng(each).permutation(len(taken)))
    plain = len(order) // 2 if mixed else 0
    groups = [[number] for number in order[:plain]]
    groups += [order[start : start + each] for start in range(plain, len(order) - each + 1, each)]
    for group in groups:
        names = {box[0] for number in group for box in taken[number][1]}
        pictures = [taken[number][0] for number in group]
        yield (joined(pictures, tall) if len(group) > 1 else pictures[0]), names


def strips(taken: list[tuple[Image.Image, list[list[Any]]]], aspect: float) -> Iterator[Picture]:
    """The middle of each of 64 photos; an object counts if more than half of the height of its box is left."""
    for picture, boxes in taken[:64]:
        height = picture.width / aspect
        if height > 0.95 * picture.height:
            continue
        top, bottom = 0.5 - height / picture.height / 2, 0.5 + height / picture.height / 2
        names = {n for n, _, y0, _, y1 in boxes if min(y1, bottom) - max(y0, top) > 0.5 * (y1 - y0)}
        rows = (round(top * picture.height), round(bottom * picture.height))
        yield picture.crop((0, rows[0], picture.width, rows[1])), names


def pieces(picture: Image.Image, aspect: float, overlap: float) -> list[Image.Image]:
    """Windows of an aspect ratio along the longer side, for comparison with `wide.parts`."""
    (width, height), shorter = picture.size, min(picture.size)
    longer, side = max(picture.size), aspect * shorter
    if longer <= wide.WIDE * shorter:
        return [picture]
    count = max(2, int(np.ceil((longer / side - overlap) / (1 - overlap) - 1e-6)))
    starts = np.linspace(0, longer - side, count)
    return [
        picture.crop(
            (round(s), 0, round(s + side), height) if width > height else (0, round(s), width, round(s + side))
        )
        for s in starts
    ]


class Ways:
    """The ways to treat a picture: name → picture → vectors (n, dim). Equal inputs are encoded once."""

    def __init__(self, encoder: BuiltinEncoder) -> None:
        self._encoder = encoder
        self._framing = encoder._description.framing
        self._known: dict[bytes, FloatArray] = {}
        whole, parts = (lambda picture: self._rows([picture])), (lambda picture: self._rows(wide.parts(picture)))
        self.all: dict[str, Callable[[Image.Image], FloatArray]] = {
            "one vector, aspect cut to its root": whole,
            "one vector of the centre": lambda picture: self._rows([picture], crop=1.0),
            "one vector, squeezed": lambda picture: self._rows([picture], crop=0.0),
            "mean of the parts": lambda picture: self._mean(parts(picture)),
            "squares without overlap": lambda picture: self._rows(pieces(picture, 1.0, 0.0)),
            "pieces of 4:3, overlap 1/4": lambda picture: self._rows(pieces(picture, 4 / 3, 0.25)),
            "squares and the whole": lambda picture: np.concatenate([parts(picture), whole(picture)]),
            "squares, overlap 1/4 (indexing)": parts,
        }

    def _rows(self, pictures: list[Image.Image], crop: float | None = None) -> FloatArray:
        framing = self._framing if crop is None else replace(self._framing, crop=crop)
        inputs = [framing.apply(picture) for picture in pictures]
        new = [array for array in inputs if array.tobytes() not in self._known]
        for start in range(0, len(new), 4):
            batch = new[start : start + 4]
            rows = self._encoder.encode_prepared(np.stack(batch))
            self._known.update((array.tobytes(), row) for array, row in zip(batch, rows, strict=True))
        return np.stack([self._known[array.tobytes()] for array in inputs])

    @staticmethod
    def _mean(rows: FloatArray) -> FloatArray:
        total = rows.sum(axis=0, keepdims=True)
        return (total / np.linalg.norm(total)).astype(np.float32)

    def forget(self) -> None:
        """Drops the vectors of one gallery."""
        self._known.clear()


def judge(ways: Ways, encoder: BuiltinEncoder, gallery: list[Picture]) -> dict[str, Any]:
    """Every way on one gallery, over the names that some of its pictures show and some do not."""
    every = sorted({name for _, names in gallery for name in names})
    shows = np.array([[name in names for _, names in gallery] for name in every])
    use = ~shows.all(axis=1)
    queries = encoder.encode_texts([f"a photo of a {name}." for name in every])[use]
    shows, found = shows[use], {}
    for way, rows_of in ways.all.items():
        segments = [rows_of(picture) for picture, _ in gallery]
        scores = np.stack([(queries @ rows.T).max(axis=1) for rows in segments], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")
        hits = np.take_along_axis(shows, best, axis=1)
        precision = [
            average_precision(order.tolist(), set(np.flatnonzero(right).tolist()))
            for order, right in zip(best, shows, strict=True)
        ]
        found[way] = {
            "mAP": round(float(np.mean(precision)), 4),
            "hit@1": round(float(hits[:, 0].mean()), 4),
            "hit@5": round(float(hits[:, :5].any(axis=1).mean()), 4),
            "vectors": sum(len(rows) for rows in segments),
        }
    ways.forget()
    ratios = [max(picture.size) / min(picture.size) for picture, _ in gallery]
    return {"pictures": len(gallery), "names": len(shows), "median_aspect": round(float(np.median(ratios)), 2), **found}


def main() -> None:
    """Measures, prints, writes the result."""
    parser = command_line(__doc__)
    parser.add_argument("--cases", nargs="*", choices=[*CASES, *STRIPS], default=[*CASES, *STRIPS])
    arguments = parser.parse_args()
    taken, encoder = photos(data_folder("photos")), BuiltinEncoder(options=EncoderOptions(threads=2))
    ways, figures = Ways(encoder), {}
    for name in arguments.cases:
        gallery = list(strips(taken, STRIPS[name]) if name in STRIPS else collages(taken, *CASES[name]))
        figures[name] = judge(ways, encoder, gallery)
        parts = {"wide": wide.WIDE, "overlap": wide.OVERLAP, "max_parts": wide.MAX_PARTS}
        publish("wide_images", {"encoder": encoder.spec.describe(), "parts": parts, "cases": figures}, arguments)


if __name__ == "__main__":
    main()

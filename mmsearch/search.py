"""The `query` line: query → vector → nearest rows → catalogue → best segment of each document → hits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.catalogue import Found, RowArray, Tower
from mmsearch.decoders import decoder_for
from mmsearch.decoders.base import DecodeOptions
from mmsearch.encoders.base import Encoder
from mmsearch.errors import MediaError, UsageError
from mmsearch.index import IndexDirectory
from mmsearch.types import MODALITIES, Hit, Modality
from mmsearch.vector_index import ExactIndex

if TYPE_CHECKING:
    from PIL.Image import Image

QueryVector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SearchOptions:
    """What to answer with.

    ``k``: how many documents. ``modalities``: of which kinds; ``None`` means images and videos, because in one
    list text passages would win over any image: two texts always lie closer than a text and an image.
    """

    k: int = 10
    modalities: tuple[Modality, ...] | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k must be at least 1, got {self.k}")
        unknown = [name for name in self.modalities or () if name not in MODALITIES]
        if unknown:
            raise UsageError(f"no such modality: {unknown[0]}; there are {', '.join(MODALITIES)}")


def encode_query(encoder: Encoder, text: str | None = None, image: Image | Path | None = None) -> QueryVector:
    """A text or an image as one query vector, (dim,) float32 of length 1.

    Raises:
        UsageError: both or none given, an empty text, or an image that cannot be read.
    """
    if (text is None) == (image is None):
        raise UsageError("give either a text or an image to search for")
    if text is not None:
        if not text.strip():
            raise UsageError("the query is empty: say what to search for")
        rows = encoder.encode_texts([text])
    else:
        rows = encoder.encode_images([_load(image, encoder) if isinstance(image, Path) else image])  # type: ignore[list-item]
    vector: QueryVector = rows[0]
    return vector


def _load(path: Path, encoder: Encoder) -> Image:
    decoder = decoder_for(path)
    if decoder is None or decoder.modality == "text":
        raise UsageError(f"{path} is no image that mmsearch can read")
    if not path.is_file():
        raise UsageError(f"there is no file {path}: check the spelling")
    try:
        segment = next(decoder.decode(path, DecodeOptions(min_side=encoder.input_size)).segments)
    except (MediaError, StopIteration) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    assert segment.image is not None
    return segment.image


class Searcher:
    """Searches one state of an index; open another one to see what was committed since."""

    def __init__(self, index: IndexDirectory) -> None:
        self._index = index
        self._tower: Tower = index.tower()
        self._vectors = ExactIndex(index.matrix(self._tower))
        self._present = index.catalogue.modalities(self._tower.id)
        self._dead = index.catalogue.dead_rows(self._tower.id)

    def search(self, vector: QueryVector, options: SearchOptions) -> list[Hit]:
        """The best segment of each of the k best documents, best first.

        One document may own many near segments, so rows are asked for in growing numbers until k documents are
        there or no rows are left.
        """
        restriction = self._restriction(options)
        wanted = 2 * options.k + 8
        while True:
            neighbours = self._vectors.search(vector[None, :], wanted, **restriction)[0]
            scores = dict(zip(neighbours.rows.tolist(), neighbours.scores.tolist(), strict=True))
            best = self._best_segments(scores)
            if len(best) >= options.k or len(scores) < wanted:
                return self._hits(best[: options.k], scores)
            wanted *= 4

    def _restriction(self, options: SearchOptions) -> dict[str, Any]:
        """Which rows may answer: those of the modalities asked for, without the dead ones."""
        allowed = set(options.modalities or ("image", "video"))
        if self._present <= allowed:
            return {"without": self._dead} if len(self._dead) else {}
        rows: RowArray = self._index.catalogue.rows_of_modalities(self._tower.id, sorted(allowed))
        return {"only": rows[rows < self._tower.row_count]}

    def _best_segments(self, scores: dict[int, float]) -> list[Found]:
        """One segment a document, its best; best document first, ties by document id."""
        found = self._index.catalogue.find_rows(self._tower.id, list(scores))
        found.sort(key=lambda segment: (-scores[segment.row], segment.document_id, segment.ordinal))
        best: dict[int, Found] = {}
        for segment in found:
            best.setdefault(segment.document_id, segment)
        return list(best.values())

    def _hits(self, best: list[Found], scores: dict[int, float]) -> list[Hit]:
        return [
            Hit(
                rank=rank,
                score=scores[segment.row],
                path=str(self._index.path_of(segment)),
                modality=segment.modality,
                segment=segment.ordinal,
                start_s=segment.start_s,
                end_s=segment.end_s,
                text=segment.text,
            )
            for rank, segment in enumerate(best, start=1)
        ]

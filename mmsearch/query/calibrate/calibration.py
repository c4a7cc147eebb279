"""How the scores of one encoder are distributed over one store, from generic captions that ship with mmsearch.

Two things are read from it:

- **Hubness.** Some pictures lie near every text, some text passages near every picture; see `calibrate.fit`.
- **Relevance.** Of a text and pictures the chance that a hit is right; see `calibrate.fit`. Of text passages the share
  of generic captions whose best passage in this very store has a lower score; of an image and images the share of the
  store's images that have a less similar nearest neighbour.

The store keeps it, and what was measured of each segment (`Store.columns`), as a cache: made anew when it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.core.modalities import is_passages, names_in
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder
from mmsearch.models.encoders.caption_centroids import NEIGHBOURS
from mmsearch.query.calibrate.caption_bank import bank_vectors, captions_digest, generic_captions
from mmsearch.query.calibrate.fit import (
    FitScale,
    Pooled,
    TextSpread,
    hubness_of_passages,
    hubness_of_vectors,
    learned_numbers,
    load_reference,
    share_beaten,
    weights,
)
from mmsearch.query.options import ALPHA
from mmsearch.store.base import Columns, FloatArray, IdArray, Store

SAMPLE, OTHERS = 512, 80_000
"""Images of the store that stand for images as queries, and those that may be their nearest neighbours."""
LAZY = 50_000
"""A search itself makes up for at most so many segments that no calibration covers: more would be felt."""
Kind = Literal["text", "image"]


def bank_digest() -> str:
    """Names the caption bank and how it is used."""
    return sha256("\n".join((*generic_captions(), f"{NEIGHBOURS} {ALPHA} passages")).encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def fit_scale(spec: EncoderSpec) -> FitScale:
    """What the relevance of an encoder's scores is read from."""
    return FitScale(load_reference(spec.digest, captions_digest(generic_captions())))


class Matches(NamedTuple):
    """What a query has found. Of the query: its ``kind``, the ``spread`` of its scores over pictures where it is a text
    and that is known, and how many telling ``words`` it has. Of each segment, (n,): its cosine, its score, and whether
    it is a text passage.
    """

    kind: Kind
    spread: TextSpread | None
    words: float
    cosines: FloatArray
    totals: FloatArray
    are_texts: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Calibration:
    """``bank`` float16 (captions, dim): the generic captions. ``covered``: how many segments of the ``store`` it
    knows, the first ones. ``learned``: see `mmsearch.query.calibrate.fit.learned_numbers`.

    ``passages`` (captions,): the cosine of the best passage for each generic caption. ``pooled``: how generic captions
    score with pictures. ``neighbours``: sorted, how similar the nearest other picture is. All are empty where nothing
    is known.
    """

    store: Store
    covered: int
    bank: npt.NDArray[np.float16]
    passages: FloatArray
    pooled: Pooled
    neighbours: FloatArray
    scale: FitScale
    learned: int = 0

    def hubness_of(self, ids: IdArray, kind: Kind = "text") -> FloatArray:
        """The corrections of some segments, where texts look for pictures or images for passages; 0 for all others, and
        for those that are not covered yet.
        """
        if not self.covered:
            return np.zeros(len(ids), dtype=np.float32)
        columns = self.store.columns(ids)
        hubness: FloatArray = np.where(columns.is_text == (kind == "image"), columns.hubness, np.float32(0))
        return hubness

    def corrects(self, kind: Kind) -> bool:
        """Whether hubness changes any score of such a query."""
        return kind == "text" or any(is_passages([name]) for name in self.store.modalities)

    def weights(self, queries: FloatArray, kind: Kind = "text") -> FloatArray:
        """How much hubness counts for each of ``queries``, (q, dim) of length 1: (q,)."""
        return np.ones(len(queries), np.float32) if kind == "image" else weights(queries, self.learned)

    def spread(self, query: FloatArray, weight: float, scores: Callable[[], FloatArray]) -> TextSpread | None:
        """How the scores of a text, (dim,) of length 1, are spread over pictures; ``None`` where nothing is known.

        ``weight``: how much hubness counts for it. ``scores``: gives its corrected scores with some pictures of the
        store; asked for only where no reference photos ship for the encoder.
        """
        if self.scale.reference is not None:
            return self.scale.reference.spread(query, weight)
        return self.pooled.spread(scores()) if self.pooled.count else None

    def relevance_of(self, matches: Matches) -> list[float | None]:
        """How relevant each segment is; ``None`` where too little is known. Among those of one group, the higher the
        score the higher it is.
        """
        relevance: list[float | None] = [None] * len(matches.totals)
        for of_texts in (False, True):
            places = np.flatnonzero(matches.are_texts == of_texts)
            if not len(places):
                continue
            if matches.kind == "image":
                known = None if of_texts else share_beaten(matches.cosines[places], self.neighbours)
            elif of_texts:
                known = share_beaten(matches.cosines[places], self._sorted_passages)
            elif matches.spread is None:
                known = None
            else:
                known = self.scale.curve.relevance(matches.totals[places], matches.spread, matches.words)
            for place, value in zip(places.tolist(), [] if known is None else known.tolist(), strict=False):
                relevance[place] = value
        return relevance

    @cached_property
    def _sorted_passages(self) -> FloatArray:
        return np.sort(self.passages)


def load_calibration(store: Store) -> Calibration:
    """What the store has kept if it fits its vectors and this mmsearch, else one that covers nothing."""
    scale, none = fit_scale(store.spec), np.zeros(0, dtype=np.float32)
    values, covered = store.calibration()
    nothing = Calibration(store, 0, np.zeros((0, 1), dtype=np.float16), none, Pooled(), none, scale)
    try:
        if not covered or str(values["digest"]) != _digest(scale):
            return nothing
        return Calibration(
            store, covered, values["bank"], values["passages"], Pooled(*values["pooled"].tolist()),
            values["neighbours"], scale, int(values["learned"]),
        )  # fmt: skip
    except (KeyError, TypeError):
        return nothing


def refresh_calibration(store: Store, encoder: Encoder, most: int | None = None) -> Calibration:
    """Brings the calibration up to the store's version, and lets the store keep it.

    ``most``: when more than so many segments are missing, what there is must do. Where it covers more than the store
    said that there are, another process has added and measured since that was asked: nothing is missing.
    """
    known = load_calibration(store)
    missing = store.size - known.covered
    if missing <= 0 or (most is not None and missing > most):
        return known
    bank = known.bank
    if len(bank) != len(generic_captions()) or bank.shape[1] != store.spec.dim:
        bank = bank_vectors(encoder, generic_captions())
    return _extended(known, bank, encoder)


def segments_without_calibration(store: Store) -> int:
    """How many segments `refresh_calibration` would have to look at."""
    return max(0, store.size - load_calibration(store).covered)


def _extended(known: Calibration, bank: npt.NDArray[np.float16], encoder: Encoder) -> Calibration:
    store, captions, scale = known.store, bank.astype(np.float32), known.scale
    centroids, photos = encoder.caption_centroids(), encoder.photo_sample()
    learned = learned_numbers(centroids)
    alphas = ALPHA * weights(captions, learned)
    columns: list[Columns] = []
    passages, pooled = known.passages, known.pooled
    for block in store.blocks(known.covered):
        scores = block.vectors @ captions.T
        pictures, texts = ~block.is_text & ~block.is_dead, block.is_text & ~block.is_dead
        hubness = np.where(block.is_text, np.float32(0), hubness_of_vectors(block.vectors, scores, centroids))
        if scale.reference is None:
            pooled = pooled.plus(scores[pictures] - alphas * hubness[pictures, None])
        if texts.any():
            best = scores[texts].max(axis=0)
            passages = np.maximum(passages, best) if len(passages) else best
        hubness[block.is_text] = hubness_of_passages(block.vectors[block.is_text], photos, scale.reference)
        columns.append(Columns(hubness, block.is_text))
    found = _nearest_neighbours(store)
    neighbours = found if len(found) else known.neighbours
    values: dict[str, npt.NDArray[Any]] = {
        "bank": bank, "digest": np.array(_digest(scale)), "learned": np.array(learned), "neighbours": neighbours,
        "passages": passages, "pooled": np.array([pooled.count, pooled.total, pooled.squares]),
    }  # fmt: skip
    grown = Columns(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))
    store.keep_calibration(values, grown, known.covered)
    return Calibration(store, store.size, bank, passages, pooled, neighbours, scale, learned)


def _nearest_neighbours(store: Store) -> FloatArray:
    """Sorted: how similar the nearest other picture is, for a sample of the pictures; copies do not count."""
    pictures = names_in("visual", store.modalities)
    sample, others = store.sample(SAMPLE, pictures, 1), store.sample(OTHERS, pictures, 2)
    if len(sample) < 16:
        return np.zeros(0, dtype=np.float32)
    queries = store.vectors(sample)
    best = np.full(len(sample), -1.0, dtype=np.float32)
    for start in range(0, len(others), 4096):
        block = others[start : start + 4096]
        scores = queries @ store.vectors(block).T
        scores[(sample[:, None] == block[None, :]) | (scores > 0.9995)] = -1.0
        np.maximum(best, scores.max(axis=1), out=best)
    return np.sort(best)


def _digest(scale: FitScale) -> str:
    return f"{bank_digest()} {scale.name}"

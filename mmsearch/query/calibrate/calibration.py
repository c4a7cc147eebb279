"""How the scores of one encoder are distributed over one store, from generic captions that ship with mmsearch.

Two things are read from it:

- **Hubness.** Some pictures lie near every text, some text passages near every picture; see `calibrate.fit`.
- **Relevance.** The best of a million is better than the best of a hundred. So how well a hit fits
  (`calibrate.fit`) is compared with how well the best hits of generic captions fit in this very store: its
  relevance is the share of them that it beats. Text passages and images as queries are compared by cosine, images
  with the nearest neighbours of a sample of the store's own images.

The store keeps it, and what was measured of each segment (`Store.columns`), as a cache: made anew when it does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.core.modalities import Group, is_passages, names_in
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder
from mmsearch.models.encoders.caption_centroids import NEIGHBOURS
from mmsearch.query.calibrate.caption_bank import bank_vectors, captions_digest, generic_captions
from mmsearch.query.calibrate.fit import (
    TOGETHER,
    FitScale,
    Tops,
    hubness_of_passages,
    hubness_of_vectors,
    learned_numbers,
    load_reference,
    share_beaten,
    weights,
)
from mmsearch.query.options import ALPHA
from mmsearch.store.base import Block, Columns, FloatArray, IdArray, Store

SAMPLE, OTHERS = 512, 80_000
"""Images of the store that stand for images as queries, and those that may be their nearest neighbours."""
LAZY = 50_000
"""A search itself makes up for at most so many segments that no calibration covers: more would be felt."""
Kind = Literal["text", "image"]
GROUPS: tuple[Group, ...] = ("visual", "text")


def bank_digest() -> str:
    """Names the caption bank and how it is used."""
    return sha256("\n".join((*generic_captions(), f"{NEIGHBOURS} {ALPHA} passages")).encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def fit_scale(spec: EncoderSpec) -> FitScale:
    """What fits of an encoder are measured by."""
    return FitScale.of(spec, load_reference(spec.digest, captions_digest(generic_captions())))


class Matches(NamedTuple):
    """Segments that a query has found. Of the query: its ``kind``, how much hubness counts for it (``weights``, (1,),
    see `Calibration.weights`) and what it usually reaches (``usual``, (1,), see `FitScale.usual`). Of each segment,
    (n,): its id, its cosine and whether it is a text passage.
    """

    kind: Kind
    weights: FloatArray
    usual: FloatArray | None
    ids: IdArray
    cosines: FloatArray
    are_texts: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Calibration:
    """``bank`` float16 (captions, dim): the generic captions. ``covered``: how many segments of the ``store`` it
    knows, the first ones. ``learned``: see `mmsearch.query.calibrate.fit.learned_numbers`.

    ``tops``: for each group of segments what generic captions find best in it. ``neighbours``: sorted, how similar the
    nearest other picture is. Both are empty where nothing is known.
    """

    store: Store
    covered: int
    bank: npt.NDArray[np.float16]
    tops: Mapping[Group, Tops]
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

    def relevance_of(self, matches: Matches) -> list[float | None]:
        """The share of generic queries whose best hit fits worse, for each; ``None`` where too little is known."""
        relevance: list[float | None] = [None] * len(matches.ids)
        for group in GROUPS:
            places = np.flatnonzero(matches.are_texts == (group == "text"))
            if len(places):
                shares = share_beaten(self.fits(matches, group, places), self._best(matches.kind, group))
                for place, share in zip(places.tolist(), [] if shares is None else shares.tolist(), strict=False):
                    relevance[place] = share
        return relevance

    def relevance_together(self, matches: Matches) -> float | None:
        """The share of generic captions whose first hits together fit worse than these, all of one group."""
        group: Group = "text" if len(matches.are_texts) and matches.are_texts[0] else "visual"
        if matches.kind == "image" or group not in self.tops or not len(matches.ids):
            return None
        fits = self.fits(matches, group, np.arange(len(matches.ids)))
        shares = share_beaten(fits[:TOGETHER].mean(keepdims=True), self._together[group])
        return None if shares is None else float(shares[0])

    def fits(self, matches: Matches, group: Group, places: npt.NDArray[np.intp]) -> FloatArray:
        """How well segments of one group, at some places, fit the query."""
        ids, cosines = matches.ids[places], matches.cosines[places]
        if matches.kind == "image" or group == "text":
            return cosines
        crowd = self.store.columns(ids).crowd if self.covered else np.zeros(len(ids), dtype=np.float32)
        alpha = ALPHA * matches.weights
        return self.scale.fits(cosines, cosines - alpha * self.hubness_of(ids), crowd, matches.usual)

    def _best(self, kind: Kind, group: Group) -> FloatArray:
        if kind == "image":
            return self.neighbours if group == "visual" else self.neighbours[:0]
        return self._bests[group] if group in self._bests else self.neighbours[:0]

    @cached_property
    def _bests(self) -> dict[Group, FloatArray]:
        return {group: tops.best() for group, tops in self.tops.items()}

    @cached_property
    def _together(self) -> dict[Group, FloatArray]:
        return {group: tops.together() for group, tops in self.tops.items()}


def load_calibration(store: Store) -> Calibration:
    """What the store has kept if it fits its vectors and this mmsearch, else one that covers nothing."""
    scale, none = fit_scale(store.spec), np.zeros(0, dtype=np.float32)
    values, covered = store.calibration()
    bank = np.zeros((0, 1), dtype=np.float16)
    try:
        if str(values["digest"]) != _digest(scale):
            return Calibration(store, 0, bank, {}, none, scale)
        bank = values["bank"]
        tops = {
            group: Tops(values[f"{group}_scores"], values[f"{group}_fits"])
            for group in GROUPS if f"{group}_scores" in values
        }  # fmt: skip
        neighbours, learned = values["neighbours"], int(values["learned"])
    except KeyError:
        return Calibration(store, 0, bank, {}, none, scale)
    if not covered:
        return Calibration(store, 0, bank, {}, none, scale)
    return Calibration(store, covered, bank, tops, neighbours, scale, learned)


def refresh_calibration(store: Store, encoder: Encoder, most: int | None = None) -> Calibration:
    """Brings the calibration up to the store's version, and lets the store keep it.

    ``most``: when more than so many segments are missing, what there is must do.
    """
    known = load_calibration(store)
    missing = store.size - known.covered
    if missing == 0 or (most is not None and missing > most):
        return known
    bank = known.bank
    if len(bank) != len(generic_captions()) or bank.shape[1] != store.spec.dim:
        bank = bank_vectors(encoder, generic_captions())
    return _extended(known, bank, encoder)


def segments_without_calibration(store: Store) -> int:
    """How many segments `refresh_calibration` would have to look at."""
    return store.size - load_calibration(store).covered


def _extended(known: Calibration, bank: npt.NDArray[np.float16], encoder: Encoder) -> Calibration:
    store, captions = known.store, bank.astype(np.float32)
    scale, usual = known.scale, known.scale.usual(captions)
    centroids, photos = encoder.caption_centroids(), encoder.photo_sample()
    learned = learned_numbers(centroids)
    alphas = ALPHA * weights(captions, learned)
    columns: list[Columns] = []
    tops = {group: known.tops.get(group, Tops.none(len(captions))) for group in GROUPS}
    for block in store.blocks(known.covered):
        scores = block.vectors @ captions.T
        measured, of_pictures = _measured(block, scores, centroids, photos, scale)
        columns.append(measured)
        corrected = scores - alphas * of_pictures[:, None]
        for group, members in zip(GROUPS, (~block.is_text, block.is_text), strict=True):
            alive = np.flatnonzero(members & ~block.is_dead)
            alive = alive[tops[group].promising(corrected[alive])]
            if group == "text":
                fits = corrected[alive]
            else:
                fits = scale.fits(scores[alive], corrected[alive], measured.crowd[alive, None], usual)
            tops[group] = tops[group].merged(corrected[alive], fits)
    pictures = _nearest_neighbours(store)
    neighbours = pictures if len(pictures) else known.neighbours
    found = {group: top for group, top in tops.items() if len(top.scores)}
    values: dict[str, npt.NDArray[Any]] = {
        "bank": bank, "digest": np.array(_digest(scale)), "learned": np.array(learned), "neighbours": neighbours
    }  # fmt: skip
    for group, top in found.items():
        values |= {f"{group}_scores": top.scores, f"{group}_fits": top.fits}
    grown = Columns(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))
    store.keep_calibration(values, grown, known.covered)
    return Calibration(store, store.size, bank, found, neighbours, scale, learned)


def _measured(
    block: Block, scores: FloatArray, centroids: FloatArray | None, photos: FloatArray | None, scale: FitScale
) -> tuple[Columns, FloatArray]:
    """What is kept of segments; and the hubness of the pictures among them alone, 0 for the others."""
    of_pictures = np.where(block.is_text, np.float32(0), hubness_of_vectors(block.vectors, scores, centroids))
    hubness = of_pictures.copy()
    hubness[block.is_text] = hubness_of_passages(block.vectors[block.is_text], photos, scale.reference)
    crowd = np.where(block.is_text, np.float32(0), scale.crowd(scores))
    return Columns(hubness, crowd, block.is_text), of_pictures


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

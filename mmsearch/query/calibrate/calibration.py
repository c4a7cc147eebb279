"""How the scores of one encoder are distributed over one index, from generic captions that ship with mmsearch.

Two things are read from it:

- **Hubness.** Some pictures lie near every text, some text passages near every picture; see `calibrate.hubness`.
- **Relevance.** The best of a million is better than the best of a hundred. So how well a hit fits
  (`calibrate.fit`) is compared with how well the best hits of generic captions fit in this very index: its
  relevance is the share of them that it beats. Text passages and images as questions are compared by cosine, images
  with the nearest neighbours of a sample of the index's own images.

It lies in the index directory as a cache: ``background-<key>.npz``, rebuilt when it does not fit.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmsearch.core.modalities import Group, names_in
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.models.encoders.caption_centroids import NEIGHBOURS
from mmsearch.query.calibrate.caption_bank import bank_vectors, captions_digest
from mmsearch.query.calibrate.fit import TOGETHER, FitScale, Tops, share_beaten
from mmsearch.query.calibrate.hubness import hubness_of_passages, hubness_of_vectors, learned_numbers, weights
from mmsearch.query.calibrate.reference import load_reference
from mmsearch.query.options import ALPHA
from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.catalogue.checksums import digest_of_rows
from mmsearch.store.local.directory import IndexDirectory

BLOCK = 4096
SAMPLE = 512
"""Images of the index that stand for images as questions."""
LAZY_ROWS = 50_000
"""A search itself makes up for at most so many rows that no background covers: more would be felt."""
Kind = Literal["text", "image"]
GROUPS: tuple[Group, ...] = ("visual", "text")


@lru_cache(maxsize=1)
def generic_captions() -> tuple[str, ...]:
    """The caption bank: short descriptions of everyday pictures, written for this purpose."""
    return tuple((Path(__file__).parent / "captions.txt").read_text(encoding="utf-8").splitlines())


def bank_digest() -> str:
    """Names the caption bank and how it is used."""
    return sha256("\n".join((*generic_captions(), f"{NEIGHBOURS} {ALPHA} passages")).encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def fit_scale(spec: EncoderSpec) -> FitScale:
    """What fits of an encoder are measured by."""
    return FitScale.of(spec, load_reference(spec.digest, captions_digest(generic_captions())))


@dataclass(frozen=True, eq=False)
class Background:
    """``hubness`` and ``crowd`` float32 (rows,), the latter 0 for text passages; ``is_text`` bool (rows,), which rows
    are such; ``bank`` float16 (captions, dim).

    ``tops``: for each group of rows what generic captions find best in it. ``neighbours``: sorted, how similar the
    nearest other picture is. Both are empty where nothing is known. ``mark`` tells other vectors at the same rows.
    ``learned``: see `mmsearch.query.calibrate.hubness.learned_numbers`.
    """

    hubness: FloatArray
    is_text: npt.NDArray[np.bool_]
    crowd: FloatArray
    bank: npt.NDArray[np.float16]
    tops: Mapping[Group, Tops]
    neighbours: FloatArray
    scale: FitScale
    mark: str
    learned: int = 0

    @property
    def rows(self) -> int:
        """How many rows of the vector file it covers."""
        return len(self.hubness)

    def hubness_of(self, rows: npt.NDArray[np.int64], kind: Kind = "text") -> FloatArray:
        """The corrections of some rows, where texts ask for pictures or images for passages; 0 for all other rows, and
        for those that are not covered yet.
        """
        found = np.zeros(len(rows), dtype=np.float32)
        known = rows < self.rows
        known[known] = self.is_text[rows[known]] == (kind == "image")
        found[known] = self.hubness[rows[known]]
        return found

    def corrects(self, kind: Kind) -> bool:
        """Whether hubness changes any score of such a question."""
        return kind == "text" or self._has_passages

    @cached_property
    def _has_passages(self) -> bool:
        return bool(self.is_text.any())

    def weights(self, questions: FloatArray, kind: Kind = "text") -> FloatArray:
        """How much hubness counts for each of ``questions``, (q, dim) of length 1: (q,)."""
        return np.ones(len(questions), np.float32) if kind == "image" else weights(questions, self.learned)

    def fits(
        self, kind: Kind, group: Group, question: FloatArray, rows: npt.NDArray[np.int64], cosines: FloatArray
    ) -> FloatArray:
        """How well ``rows`` of one group fit a question, (dim,) of length 1, of which their ``cosines`` are known."""
        if kind == "image" or group == "text":
            return cosines
        crowd = np.zeros(len(rows), dtype=np.float32)
        known = rows < self.rows
        crowd[known] = self.crowd[rows[known]]
        usual = self.scale.usual(question[None])
        alpha = ALPHA * self.weights(question[None])
        return self.scale.fits(cosines, cosines - alpha * self.hubness_of(rows), crowd, usual)

    def relevance(self, kind: Kind, group: Group, fits: FloatArray) -> FloatArray | None:
        """The share of background questions whose best hit fits worse, for the fits of hits."""
        return share_beaten(fits, self._best(kind, group))

    def relevance_together(self, kind: Kind, group: Group, fits: FloatArray) -> float | None:
        """The share of generic captions whose first hits together fit worse than the first hits with these fits."""
        if kind == "image" or group not in self.tops or not len(fits):
            return None
        shares = share_beaten(fits[:TOGETHER].mean(keepdims=True), self._together[group])
        return None if shares is None else float(shares[0])

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


def empty_background(spec: EncoderSpec, bank: npt.NDArray[np.float16] | None = None) -> Background:
    """One of no rows."""
    none = np.zeros(0, dtype=np.float32)
    captions = np.zeros((0, 1), np.float16) if bank is None else bank
    return Background(none, none.astype(bool), none, captions, {}, none, fit_scale(spec), "")


def load_background(index: IndexDirectory, space: Space) -> Background:
    """The one in the index directory if it fits the vectors, else an empty one."""
    scale = fit_scale(space.spec)
    try:
        with index.background_file(space).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["digest"]) != _digest(scale):
                return empty_background(space.spec)
            tops = {
                group: Tops(stored[f"{group}_scores"], stored[f"{group}_fits"])
                for group in GROUPS if f"{group}_scores" in stored
            }  # fmt: skip
            found = Background(
                stored["hubness"], stored["is_text"], stored["crowd"], stored["bank"], tops, stored["neighbours"],
                scale, str(stored["mark"]), int(stored["learned"]),
            )  # fmt: skip
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return empty_background(space.spec)
    if found.rows > space.row_count or found.mark not in _marks(index, space, found.rows):
        return empty_background(space.spec, found.bank)
    return found


def is_background_damaged(index: IndexDirectory, space: Space) -> bool:
    """Whether there is one in the index directory that is not what was written; each part of it has a checksum."""
    try:
        with zipfile.ZipFile(index.background_file(space)) as file:
            return file.testzip() is not None
    except FileNotFoundError:
        return False
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, EOFError, zlib.error):
        return True


def rows_without_background(index: IndexDirectory, space: Space) -> int:
    """How many committed rows `refresh_background` would have to look at."""
    return space.row_count - load_background(index, space).rows


def refresh_background(
    index: IndexDirectory, space: Space, encoder: Encoder, most_rows: int | None = None
) -> Background:
    """Brings the background up to the committed rows and saves it where the directory can be written to.

    ``most_rows``: when more than so many rows are missing, what there is must do.
    """
    known = load_background(index, space)
    matrix = index.matrix(space)
    missing = len(matrix) - known.rows
    if missing == 0 or (most_rows is not None and missing > most_rows):
        return known
    bank = known.bank
    if len(bank) != len(generic_captions()) or bank.shape[1] != space.spec.dim:
        bank = bank_vectors(encoder, generic_captions())
    texts = index.catalogue.rows_of_modalities(space.id, names_in("text", index.catalogue.modality_names()))
    is_text = np.zeros(len(matrix), dtype=bool)
    is_text[texts[texts < len(matrix)]] = True
    is_dead = np.zeros(len(matrix), dtype=bool)
    is_dead[index.catalogue.rows_given_up(space.id)] = True
    extended = replace(
        _extended(known, matrix, bank, encoder.caption_centroids(), encoder.photo_sample(), is_text, is_dead),
        mark=_marks(index, space, len(matrix))[0],
    )
    _save(index.background_file(space), extended)
    return extended


def _extended(
    known: Background, matrix: Any, bank: npt.NDArray[np.float16], centroids: FloatArray | None,
    photos: FloatArray | None, is_text: npt.NDArray[np.bool_], is_dead: npt.NDArray[np.bool_],
) -> Background:  # fmt: skip
    captions = bank.astype(np.float32)
    scale, usual = known.scale, known.scale.usual(captions)
    learned = learned_numbers(centroids)
    alphas = ALPHA * weights(captions, learned)
    more = np.zeros(len(matrix) - known.rows, dtype=np.float32)
    hubness, crowd = np.concatenate([known.hubness, more]), np.concatenate([known.crowd, more])
    tops = {group: known.tops.get(group, Tops.none(len(captions))) for group in GROUPS}
    for start in range(known.rows, len(matrix), BLOCK):
        rows = slice(start, min(start + BLOCK, len(matrix)))
        vectors = matrix[rows].astype(np.float32)
        scores = vectors @ captions.T
        of_pictures = np.where(is_text[rows], np.float32(0), hubness_of_vectors(vectors, scores, centroids))
        hubness[rows] = of_pictures
        hubness[rows][is_text[rows]] = hubness_of_passages(vectors[is_text[rows]], photos, scale.reference)
        crowd[rows] = np.where(is_text[rows], 0.0, scale.crowd(scores))
        corrected = scores - alphas * of_pictures[:, None]
        for group, members in zip(GROUPS, (~is_text[rows], is_text[rows]), strict=True):
            alive = np.flatnonzero(members & ~is_dead[rows])
            alive = alive[tops[group].promising(corrected[alive])]
            if group == "text":
                fits = corrected[alive]
            else:
                fits = scale.fits(scores[alive], corrected[alive], crowd[rows][alive, None], usual)
            tops[group] = tops[group].merged(corrected[alive], fits)
    pictures = _nearest_neighbours(matrix, np.flatnonzero(~is_text & ~is_dead))
    neighbours = pictures if len(pictures) else known.neighbours
    found = {group: top for group, top in tops.items() if len(top.scores)}
    return Background(hubness, is_text, crowd, bank, found, neighbours, scale, "", learned)


def _nearest_neighbours(matrix: Any, rows: npt.NDArray[np.int64]) -> FloatArray:
    """Sorted: how similar the nearest other picture is, for a sample of the rows; copies do not count."""
    if len(rows) < 16:
        return np.zeros(0, dtype=np.float32)
    random = np.random.default_rng(len(rows))
    sample = random.choice(rows, min(SAMPLE, len(rows)), replace=False)
    others = rows if len(rows) <= 20 * BLOCK else random.choice(rows, 20 * BLOCK, replace=False)
    queries = matrix[sample].astype(np.float32)
    best = np.full(len(sample), -1.0, dtype=np.float32)
    for start in range(0, len(others), BLOCK):
        block = others[start : start + BLOCK]
        scores = queries @ matrix[block].astype(np.float32).T
        scores[(sample[:, None] == block[None, :]) | (scores > 0.9995)] = -1.0
        np.maximum(best, scores.max(axis=1), out=best)
    return np.sort(best)


def _marks(index: IndexDirectory, space: Space, rows: int) -> list[str]:
    """What the first ``rows`` rows of a vector file may be called, the best name first: other vectors, or the same in
    other rows, have others. The first is of the checksums of all of them, if they have any; the other, which an older
    mmsearch wrote, is of three rows.
    """
    of_all = digest_of_rows(index.catalogue.sql, space.file, rows)
    of_three = _mark(index.matrix(space)[:rows])
    return [of_three] if of_all is None else [f"all {of_all}", of_three]


def _mark(matrix: Any) -> str:
    """Of the first, middle and last row."""
    if not len(matrix):
        return ""
    rows = np.ascontiguousarray(matrix[[0, len(matrix) // 2, len(matrix) - 1]])
    return sha256(rows.tobytes()).hexdigest()[:16]


def _digest(scale: FitScale) -> str:
    return f"{bank_digest()} {scale.name}"


def _save(path: Path, background: Background) -> None:
    """Replaces the file atomically; a cache that cannot be written is done without."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    arrays: dict[str, Any] = {"neighbours": background.neighbours}
    for group, tops in background.tops.items():
        arrays |= {f"{group}_scores": tops.scores, f"{group}_fits": tops.fits}
    with contextlib.suppress(OSError):
        try:
            with draft.open("wb") as file:
                np.savez(
                    file, hubness=background.hubness, is_text=background.is_text, crowd=background.crowd,
                    bank=background.bank, mark=np.array(background.mark), digest=np.array(_digest(background.scale)),
                    learned=np.array(background.learned), **arrays,
                )  # fmt: skip
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

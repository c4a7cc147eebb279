"""How the scores of one encoder are distributed over one index, from generic captions that ship with mmsearch.

Two things are read from it:

- **Hubness.** Some pictures lie near every text. NNN (Bowman et al. 2024) takes ``alpha`` times a picture's mean
  similarity to its ``NEIGHBOURS`` most similar generic captions off its score: one float a row.
- **Relevance.** A cosine of 0.3 is a good hit for one model and noise for another, and the best of a million is
  higher than the best of a hundred. So a hit is compared with the best hits that generic captions get in this
  very index: its relevance is the share of them that it beats. Images as questions are compared with the nearest
  neighbours of a sample of the index's own images.

It lies in the index directory as a cache: ``background-<key>.npz``, rebuilt when it does not fit.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmsearch.catalogue import Tower
from mmsearch.encoders.base import Encoder, FloatArray
from mmsearch.index import IndexDirectory
from mmsearch.search.bank_vectors import bank_vectors

NEIGHBOURS = 8
"""Generic captions that tell how much of a hub a picture is."""
ALPHA = 0.25
"""The hubness correction with which relevance is measured; the default of `SearchOptions.hubness`."""
BLOCK = 4096
SAMPLE = 512
"""Images of the index that stand for images as questions."""
LAZY_ROWS = 50_000
"""A search itself makes up for at most so many rows that no background covers: more would be felt."""
Kind = Literal["text", "image"]
Group = Literal["visual", "text"]


@lru_cache(maxsize=1)
def generic_captions() -> tuple[str, ...]:
    """The caption bank: short descriptions of everyday pictures, written for this purpose."""
    return tuple((Path(__file__).parent / "bank.txt").read_text(encoding="utf-8").splitlines())


def bank_digest() -> str:
    """Names the caption bank and how it is used."""
    return sha256("\n".join((*generic_captions(), f"{NEIGHBOURS} {ALPHA}")).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Background:
    """``hubness`` float32 (rows,), 0 for text passages; ``bank`` float16 (captions, dim).

    ``best``: for each kind of question and group of rows the sorted best scores, float32 (questions,); empty
    where nothing is known. ``mark`` tells other vectors at the same rows.
    """

    hubness: FloatArray
    bank: npt.NDArray[np.float16]
    best: dict[tuple[Kind, Group], FloatArray]
    mark: str

    @property
    def rows(self) -> int:
        """How many rows of the vector file it covers."""
        return len(self.hubness)

    @property
    def least_hubness(self) -> float:
        """The smallest correction of any row."""
        return float(self.hubness.min()) if len(self.hubness) else 0.0

    def hubness_of(self, rows: npt.NDArray[np.int64]) -> FloatArray:
        """The corrections of some rows; 0 for rows that are not covered yet."""
        found = np.zeros(len(rows), dtype=np.float32)
        known = rows < self.rows
        found[known] = self.hubness[rows[known]]
        return found

    def relevance(self, kind: Kind, group: Group, scores: FloatArray) -> FloatArray | None:
        """The share of background questions whose best hit is beaten, for ``scores`` corrected with ``ALPHA``."""
        best = self.best.get((kind, group))
        if best is None or len(best) < 8:
            return None
        ranks = np.interp(scores, best, np.arange(1, len(best) + 1) / (len(best) + 1), left=0.0, right=1.0)
        found: FloatArray = ranks.astype(np.float32)
        return found


EMPTY = Background(np.zeros(0, np.float32), np.zeros((0, 1), np.float16), {}, "")


def load_background(index: IndexDirectory, tower: Tower) -> Background:
    """The one in the index directory if it fits the vectors, else an empty one."""
    try:
        with _path(index, tower).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["digest"]) != bank_digest():
                return EMPTY
            best: dict[tuple[Kind, Group], FloatArray] = {
                (kind, group): stored[f"{kind}_{group}"]
                for kind in ("text", "image") for group in ("visual", "text") if f"{kind}_{group}" in stored
            }  # type: ignore[assignment, unused-ignore]  # fmt: skip
            found = Background(stored["hubness"], stored["bank"], best, str(stored["mark"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return EMPTY
    if found.rows > tower.row_count or found.mark != _mark(index.matrix(tower)[: found.rows]):
        return replace(EMPTY, bank=found.bank)
    return found


def refresh_background(
    index: IndexDirectory, tower: Tower, encoder: Encoder, most_rows: int | None = None
) -> Background:
    """Brings the background up to the committed rows and saves it where the directory can be written to.

    ``most_rows``: when more than so many rows are missing, what there is must do.
    """
    known = load_background(index, tower)
    matrix = index.matrix(tower)
    missing = len(matrix) - known.rows
    if missing == 0 or (most_rows is not None and missing > most_rows):
        return known
    bank = known.bank
    if len(bank) != len(generic_captions()) or bank.shape[1] != tower.spec.dim:
        bank = bank_vectors(encoder, generic_captions())
    texts = index.catalogue.rows_of_modalities(tower.id, ["text"])
    is_text = np.zeros(len(matrix), dtype=bool)
    is_text[texts[texts < len(matrix)]] = True
    is_dead = np.zeros(len(matrix), dtype=bool)
    is_dead[index.catalogue.dead_rows(tower.id)] = True
    extended = _extended(known, matrix, bank, is_text, is_dead)
    _save(_path(index, tower), extended)
    return extended


def _extended(
    known: Background, matrix: Any, bank: npt.NDArray[np.float16], is_text: npt.NDArray[np.bool_],
    is_dead: npt.NDArray[np.bool_],
) -> Background:  # fmt: skip
    captions = bank.astype(np.float32)
    hubness = np.concatenate([known.hubness, np.zeros(len(matrix) - known.rows, dtype=np.float32)])
    none = np.full(len(captions), -np.inf, dtype=np.float32)
    groups: tuple[Group, ...] = ("visual", "text")
    tops = {group: none.copy() for group in groups}
    for start in range(known.rows, len(matrix), BLOCK):
        rows = slice(start, min(start + BLOCK, len(matrix)))
        scores = matrix[rows].astype(np.float32) @ captions.T
        nearest = np.partition(scores, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
        hubness[rows] = np.where(is_text[rows], 0.0, nearest)
        corrected = scores - ALPHA * hubness[rows][:, None]
        for group, members in zip(groups, (~is_text[rows], is_text[rows]), strict=True):
            alive = members & ~is_dead[rows]
            if alive.any():
                np.maximum(tops[group], corrected[alive].max(axis=0), out=tops[group])
    best = dict(known.best)
    for group, top in tops.items():
        if np.isfinite(top).all():
            # Sorted scores are kept, not one for each caption: the better of equal ranks is close enough.
            old = known.best.get(("text", group))
            best["text", group] = np.sort(top) if old is None else np.maximum(np.sort(top), old)
    nearest_pictures = _nearest_neighbours(matrix, np.flatnonzero(~is_text & ~is_dead))
    if len(nearest_pictures):
        best["image", "visual"] = nearest_pictures
    return Background(hubness, bank, best, _mark(matrix))


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


def _mark(matrix: Any) -> str:
    """Of the first, middle and last row: other vectors, or vectors moved to other rows, have another."""
    if not len(matrix):
        return ""
    rows = np.ascontiguousarray(matrix[[0, len(matrix) // 2, len(matrix) - 1]])
    return sha256(rows.tobytes()).hexdigest()[:16]


def _path(index: IndexDirectory, tower: Tower) -> Path:
    return index.path / f"background-{tower.spec.key}.npz"


def _save(path: Path, background: Background) -> None:
    """Replaces the file atomically; a cache that cannot be written is done without."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    arrays: dict[str, Any] = {f"{kind}_{group}": scores for (kind, group), scores in background.best.items()}
    with contextlib.suppress(OSError):
        try:
            with draft.open("wb") as file:
                np.savez(
                    file, hubness=background.hubness, bank=background.bank, mark=np.array(background.mark),
                    digest=np.array(bank_digest()), **arrays,
                )  # fmt: skip
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

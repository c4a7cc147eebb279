"""How long it takes to find the duplicates of a large index, and how much memory.

    python benchmarks/find_duplicates.py PHOTOS [--documents 100000] [--library few|copies|burst]

PHOTOS is an index of real pictures. Vectors are invented around those of its pictures, so that they lie as those of
photos do: ``few``: one document in 50 is a near copy of another; ``copies``: 20 near copies of each picture; ``burst``:
ten pictures, and near copies of them alone. All have one shape, and a third have no date, so that little but the
vectors tells them apart.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common.output import command_line, publish
from common.photos import invented_photo

from mmsearch.api import Index
from mmsearch.core.types import EncoderSpec
from mmsearch.query.duplicates import duplicates
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.store import LocalStore

FloatArray = npt.NDArray[np.float32]
BLOCK = 20_000
NOISE = 0.08
"""The length of what tells a near copy from its picture, of length 1: a cosine of 0.994 between two copies."""


def unit(vectors: FloatArray) -> FloatArray:
    """Of length 1."""
    scaled: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled


class Pictures:
    """Invents vectors around real ones (n, dim)."""

    def __init__(self, real: FloatArray) -> None:
        self.real = real
        centred = real - real.mean(0)
        values, axes = np.linalg.eigh(centred.T @ centred / len(real))
        self.spread = (axes * np.sqrt(np.maximum(values, 0))).T.astype(np.float32)

    def other(self, count: int, random: np.random.Generator) -> FloatArray:
        """Of pictures that resemble real ones: as alike as a photo and the most alike among a few thousand others."""
        noise = random.standard_normal((count, len(self.spread)), dtype=np.float32) @ self.spread
        return unit(self.real[random.integers(len(self.real), size=count)] + 0.8 * noise)

    def copies(self, of: FloatArray, random: np.random.Generator) -> FloatArray:
        """Of near copies of pictures."""
        noise = unit(random.standard_normal(of.shape, dtype=np.float32) @ self.spread)
        return unit(of + NOISE * noise)


def made(folder: Path, pictures: Pictures, library: str, count: int, spec: EncoderSpec) -> LocalStore:
    """An index of so many invented documents."""
    random = np.random.default_rng(0)
    IndexDirectory.create(folder, spec.name, spec)
    store = LocalStore.open(folder)
    first = pictures.other({"few": 0, "copies": count // 20, "burst": 10}[library], random)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        if library == "few":
            vectors = pictures.other(size, random)
            copied = np.arange(0, size - 1, 50)
            vectors[copied] = pictures.copies(vectors[copied + 1], random)
            of = np.arange(start, start + size)
            of[copied] += 1
        else:
            of = random.integers(len(first), size=size)
            vectors = pictures.copies(first[of], random)
        documents = []
        for number, picture in zip(range(start, start + size), of.tolist(), strict=True):
            day = picture * 7919 % 7300
            documents.append(invented_photo(number, day, is_dated=number % 3 != 0))
        store.upsert(documents, vectors)
    return store


def main() -> None:
    """See the module."""
    parser = command_line(__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--library", choices=("few", "copies", "burst"), default="few")
    parser.add_argument("--index", type=Path, help="Where the index is made, or was.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.index or Path(temporary) / "index"
        if folder.is_dir():
            store = LocalStore.open(folder)
        else:
            with Index.open(given.photos) as photos:
                real = photos.vectors("type:image")[1]
            spec = EncoderSpec("duplicates", "e" * 64, real.shape[1], "none")
            store = made(folder, Pictures(real), given.library, given.documents, spec)
            del real
            store.close()
            store = LocalStore.open(folder)
        before = resource.getrusage(resource.RUSAGE_SELF)
        started, first, groups, documents = time.perf_counter(), None, 0, 0
        for group in duplicates(store):
            first = first or time.perf_counter() - started
            groups, documents = groups + 1, documents + len(group.documents)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        store.close()
    figures = {
        "documents": given.documents, "library": given.library, "groups": groups, "documents_in_groups": documents,
        "wall_s": round(wall, 2), "first_group_s": first and round(first, 2),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak_mb": round(after.ru_maxrss / 1024), "peak_before_mb": round(before.ru_maxrss / 1024),
    }  # fmt: skip
    publish(f"find_duplicates_{given.library}_{given.documents}", figures, given)


if __name__ == "__main__":
    main()

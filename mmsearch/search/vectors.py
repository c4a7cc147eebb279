"""Which vector search answers: the one place that decides it."""

from __future__ import annotations

from mmsearch.catalogue import Tower
from mmsearch.index import IndexDirectory
from mmsearch.vectors import Vectors


def open_vectors(index: IndexDirectory, tower: Tower) -> Vectors:
    """The committed vectors of a tower, searched through the vector index that was built, else exactly."""
    return Vectors(index, tower)

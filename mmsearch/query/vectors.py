"""Which vector search answers: the one place that decides it."""

from __future__ import annotations

from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.vectors import Vectors


def open_vectors(index: IndexDirectory, space: Space) -> Vectors:
    """The committed vectors of a space, searched through the vector index that was built, else exactly."""
    return Vectors(index, space)

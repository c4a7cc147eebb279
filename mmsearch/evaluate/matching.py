"""Names in a file to documents of an index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from mmsearch.core.errors import UsageError
from mmsearch.core.types import Modality
from mmsearch.store.base import FloatArray, IdArray, Store

PICTURES: tuple[Modality, ...] = ("image", "video")


@dataclass(frozen=True, eq=False)
class Gallery:
    """The images and videos of a store, in the order of their ids: what every query is compared with.

    ``segments`` int64 (segments,): their ids, by document; ``starts`` int64 (documents,) says where each begins.
    """

    documents: tuple[int, ...]
    names: tuple[str, ...]
    captions: tuple[str | None, ...]
    segments: IdArray
    starts: IdArray

    @classmethod
    def of(cls, store: Store) -> Gallery:
        """The gallery of a store.

        Raises:
            UsageError: there is nothing in it.
        """
        documents = {one.id: one for one in store.scan() if one.modality in PICTURES}
        _, ids = store.segments(list(documents), PICTURES)
        found = [one for one in store.fetch(np.unique(ids).tolist()) if one.document in documents]
        found.sort(key=lambda one: (one.document, one.ordinal))
        if not found:
            raise UsageError(f"the index {store.place} holds no images and no videos to evaluate on")
        first: dict[int, int] = {}
        for place, segment in enumerate(found):
            first.setdefault(segment.document, place)
        return cls(
            tuple(first), tuple(documents[id_].name for id_ in first), tuple(documents[id_].caption for id_ in first),
            np.array([one.id for one in found], dtype=np.int64), np.fromiter(first.values(), dtype=np.int64),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.documents)

    def best_of_documents(self, scores: FloatArray) -> FloatArray:
        """Scores of segments, (queries, segments), to those of documents, (queries, documents): the best of each."""
        best: FloatArray = np.maximum.reduceat(scores, self.starts, axis=1)
        return best


def document_ids(store: Store) -> dict[str, int]:
    """The path of each document, as a hit has it, and its id."""
    return {document.path: document.id for document in store.scan()}


class Names:
    """Finds documents by file name or by the end of their path."""

    def __init__(self, gallery: Gallery) -> None:
        self._places: dict[str, list[int]] = {}
        for place, path in enumerate(gallery.names):
            parts = PurePosixPath(path).parts
            for start in range(len(parts)):
                self._places.setdefault("/".join(parts[start:]), []).append(place)

    def place(self, name: str) -> int | None:
        """Where in the gallery a file is; ``None`` if it is not there.

        Raises:
            UsageError: several files are called so.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        for start in range(len(parts)):
            found = self._places.get("/".join(parts[start:]), [])
            if len(found) > 1:
                raise UsageError(f"{len(found)} indexed files are called {name}: write more of their paths")
            if found:
                return found[0]
        return None

    def places(self, names: Iterable[str]) -> dict[str, int]:
        """The names that are there, with their places."""
        found = ((name, self.place(name)) for name in names)
        return {name: place for name, place in found if place is not None}

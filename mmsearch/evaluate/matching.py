"""Names in a file to documents of an index, and the vectors of those documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import UsageError
from mmsearch.models.encoders.base import FloatArray
from mmsearch.store.local.catalogue import Root, RowArray
from mmsearch.store.local.directory import IndexDirectory


@dataclass(frozen=True, eq=False)
class Gallery:
    """The images and videos of an index, in the order of their ids: what every question is asked of.

    ``rows`` int64 (segments,) are grouped by document; ``starts`` int64 (documents,) says where each begins.
    """

    documents: tuple[int, ...]
    paths: tuple[str, ...]
    captions: tuple[str | None, ...]
    rows: RowArray
    starts: RowArray

    @classmethod
    def of(cls, index: IndexDirectory) -> Gallery:
        """The gallery of an index.

        Raises:
            UsageError: there is nothing in it.
        """
        space = index.space()
        found = index.catalogue.sql.execute(
            """SELECT d.id, d.path, d.caption, v.row FROM documents d
               JOIN segments s ON s.content_id = d.content_id
               JOIN vectors v ON v.segment_id = s.id AND v.space_id = ?
               WHERE d.modality IN ('image', 'video') AND v.row < ? ORDER BY d.id, s.ordinal""",
            [space.id, space.row_count],
        ).fetchall()
        if not found:
            raise UsageError(f"the index {index.path} holds no images and no videos to evaluate on")
        first: dict[int, int] = {}
        for place, row in enumerate(found):
            first.setdefault(row[0], place)
        starts = np.fromiter(first.values(), dtype=np.int64)
        heads = [found[place] for place in starts]
        return cls(
            tuple(row[0] for row in heads), tuple(row[1] for row in heads), tuple(row[2] for row in heads),
            np.array([row[3] for row in found], dtype=np.int64), starts,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.documents)

    def best_of_documents(self, scores: FloatArray) -> FloatArray:
        """Scores of rows, (questions, segments), to those of documents, (questions, documents): the best of each."""
        best: FloatArray = np.maximum.reduceat(scores, self.starts, axis=1)
        return best


def document_ids(index: IndexDirectory) -> dict[str, int]:
    """The path of each document, as a hit has it, and its id."""
    rows = index.catalogue.sql.execute(
        "SELECT d.id, r.path, r.is_relative, d.path FROM documents d JOIN roots r ON r.id = d.root_id"
    )
    folders: dict[tuple[str, int], Path | None] = {}
    found = {}
    for document, root_path, is_relative, path in rows:
        key = (root_path, is_relative)
        if key not in folders:
            root = Root(0, root_path, bool(is_relative))
            folders[key] = None if root.is_dataset else index.root_path(root)
        folder = folders[key]
        found[path if folder is None else str(folder / path)] = document
    return found


class Names:
    """Finds documents by file name or by the end of their path."""

    def __init__(self, gallery: Gallery) -> None:
        self._places: dict[str, list[int]] = {}
        for place, path in enumerate(gallery.paths):
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


def vectors_of(index: IndexDirectory, rows: npt.NDArray[np.int64]) -> FloatArray:
    """Vectors of rows, (rows, dim) float32."""
    return index.matrix(index.space())[rows].astype(np.float32)

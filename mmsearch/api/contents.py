"""What an index holds, for programs that want it whole: documents, vectors, files for others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import UsageError
from mmsearch.core.types import MediaInfo, Modality

if TYPE_CHECKING:
    from mmsearch.filters import Where
    from mmsearch.store.base import Store


class IndexedSegment(NamedTuple):
    """A part of a document that has a vector of its own: see `mmsearch.store.base.Segment`.

    ``id`` is that of `Index.vectors`, valid until the index changes.
    """

    id: int
    start_s: float | None
    end_s: float | None
    text: str | None


@dataclass(frozen=True)
class IndexedDocument:
    """A document as the index knows it. ``path`` is absolute (of an imported one, as it was given), ``size`` bytes,
    ``mtime_ns`` when the file was changed, both as of indexing; ``caption`` is what lies beside the file in words.
    """

    path: str
    modality: Modality
    size: int
    mtime_ns: int
    caption: str | None
    info: MediaInfo
    segments: tuple[IndexedSegment, ...]


def where_of_text(filters: str) -> Where | None:
    """The filters of a query without anything else; ``None`` where it is empty.

    Raises:
        UsageError: there is more in it than filters; `QueryError` where it breaks the query language.
    """
    from mmsearch.filters import And
    from mmsearch.query.language import parse_query

    if not isinstance(filters, str):
        raise UsageError(f"filters are a text, such as type:image, got {type(filters).__name__}")
    if not filters.strip():
        return None
    parsed = parse_query(filters)
    if parsed.text or parsed.exact or parsed.excluded:
        raise UsageError(f"{filters!r} has words to search for: only filters can be given here, like type:image")
    return And(tuple(parsed.filters))


def documents(store: Store, filters: str = "") -> Iterator[IndexedDocument]:
    """See `Index.documents`."""
    for part in store.export(where_of_text(filters)):
        ids = iter(part.ids.tolist())
        for one in part.documents:
            segments = tuple(IndexedSegment(next(ids), each.start_s, each.end_s, each.text) for each in one.segments)
            yield IndexedDocument(one.place, one.modality, one.size, one.mtime_ns, one.caption, one.info, segments)


def vectors(store: Store, filters: str = "") -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """See `Index.vectors`."""
    known: set[int] = set()
    ids, rows = [np.zeros(0, np.int64)], [np.zeros((0, store.spec.dim), np.float32)]
    for part in store.export(where_of_text(filters)):
        new = []
        for place, id_ in enumerate(part.ids.tolist()):  # equal files share their vectors
            if id_ not in known:
                known.add(id_)
                new.append(place)
        ids.append(part.ids[new])
        rows.append(part.vectors[new])
    return np.concatenate(ids), np.concatenate(rows)

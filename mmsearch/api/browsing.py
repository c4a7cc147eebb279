"""What an index holds, a page at a time: lists by date and path, months, folders, and everything about one document."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mmsearch.api.arguments import PathLike, path_given
from mmsearch.api.contents import where_of_text
from mmsearch.core.errors import UsageError
from mmsearch.core.modalities import spec_of
from mmsearch.core.types import DocumentInfo
from mmsearch.query.explain import find_document

if TYPE_CHECKING:
    from pathlib import Path

    from mmsearch.query import Searcher
    from mmsearch.store.base import Order, Store

Result = TypeVar("Result")
FIELDS = {
    "type": "modality", "camera": "camera", "lens": "lens", "rating": "rating", "artist": "artist", "album": "album",
}  # fmt: skip
"""Whose values can be listed, as filters call them, and what stores call them."""
SPANS = {"date": "date", "size": "size", "duration": "duration_s", "rating": "rating"}
"""Whose least and greatest value can be asked for."""


@dataclass(frozen=True)
class Moment:
    """A segment of a document: seconds in a video or recording, where it has some. ``text``: the passage of a text, or
    what is said, ``language`` (ISO 639-1) is its; ``read``: the lines read in the picture.
    """

    start_s: float | None
    end_s: float | None
    text: str | None = None
    language: str | None = None
    read: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What is known, as values that JSON knows."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Details:
    """Everything known of a document. ``name`` is its path inside of the indexed folder, ``caption`` lies beside the
    file, ``description`` in itself. ``segments``: frames, passages, parts; ``said``: passages of speech, by time.
    """

    document: DocumentInfo
    name: str
    caption: str | None
    description: str | None
    segments: tuple[Moment, ...]
    said: tuple[Moment, ...]

    def as_json(self) -> dict[str, Any]:
        """What is known, as values that JSON knows."""
        info = self.document.info
        more = {
            "path_in_folder": self.name, "caption": self.caption, "description": self.description, "title": info.title,
            "artist": info.artist, "album": info.album, "note": info.note,
        }  # fmt: skip
        read = [one.as_json() for one in self.segments if one.read is not None]
        return {
            **self.document.as_json(),
            **{name: value for name, value in more.items() if value is not None},
            "lines": [{name: value for name, value in one.items() if name != "text"} for one in read],
            "said": [one.as_json() for one in self.said],
            "moments": [
                {name: value for name, value in one.as_json().items() if name != "read"}
                for one in self.segments
                if one.start_s is not None
            ],
        }


class Browsing:
    """Lists of what an index holds. ``filters`` are those of the query language, without words: ``"type:image"``.

    All methods raise `UsageError`, where filters cannot be read `QueryError`.
    """

    def __init__(self, run: Callable[[Callable[[Any, Searcher], Any]], Any]) -> None:
        self._run = run

    def _ask(self, question: Callable[[Store], Result]) -> Result:
        answer: Result = self._run(lambda _, searcher: question(searcher.store))
        return answer

    @property
    def version(self) -> Hashable:
        """Changes with what the lists may give."""
        return self._ask(lambda store: store.version)

    def prepare(self) -> None:
        """Makes what lists without filters need, where that takes long, so that the first of them is quick too."""
        self._ask(lambda store: store.prepare_lists())

    def count(self, filters: str = "") -> int:
        """How many documents there are."""
        where = where_of_text(filters)
        return self._ask(lambda store: store.count(where))

    def documents(
        self, filters: str = "", *, order: Order = "newest", limit: int = 100, offset: int = 0
    ) -> list[DocumentInfo]:
        """A page of the documents: newest first, those without a date last, or by path."""
        if not isinstance(order, str) or order not in ("newest", "path"):
            raise UsageError(f"no such order: {order}; there are newest and path")
        _check_counts(limit=limit, offset=offset)
        where = where_of_text(filters)
        return self._ask(lambda store: store.listed(where, order, limit, offset))

    def months(self, filters: str = "") -> list[tuple[str | None, int]]:
        """``("2021-05", 12)``: months and how many documents have their date in them, in the order of `documents`;
        ``None`` stands for those without a date.
        """
        where = where_of_text(filters)
        return self._ask(lambda store: store.months(where))

    def folders(self, filters: str = "") -> list[tuple[str, int]]:
        """Absolute paths of folders, ascending, and how many documents lie in each itself."""
        where = where_of_text(filters)
        return self._ask(lambda store: store.folders(where))

    def values(self, field: str, limit: int = 100) -> list[tuple[Any, int]]:
        """The most frequent values of one of `FIELDS`, or of ``folder``, and how many documents have each."""
        _check_counts(limit=limit)
        if isinstance(field, str) and field == "folder":
            return sorted(self.folders(), key=lambda pair: (-pair[1], pair[0]))[:limit]
        if not isinstance(field, str) or field not in FIELDS:
            raise UsageError(f"no such field: {field}; there are {', '.join([*FIELDS, 'folder'])}")
        return self._ask(lambda store: store.values(FIELDS[field], limit))

    def span(self, field: str) -> tuple[Any, Any] | None:
        """The least and the greatest value of one of `SPANS`: dates in ISO 8601, bytes, seconds, stars."""
        if not isinstance(field, str) or field not in SPANS:
            raise UsageError(f"no such field: {field}; there are {', '.join(SPANS)}")
        return self._ask(lambda store: store.span(SPANS[field]))

    def details(self, path: PathLike) -> Details | None:
        """Everything about the document at a path; ``None`` where the index has none there."""
        wanted = path_given(path)
        return self._ask(lambda store: _details(store, wanted))


def _check_counts(**numbers: Any) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int) or not 0 <= value < 1 << 62:
            raise UsageError(f"{name} is a whole number, 0 or more, got {value!r}")


def _details(store: Store, path: Path) -> Details | None:
    document = find_document(store, path)
    if document is None:
        return None
    known = store.describe([document.id]).get(document.id)
    if known is None:
        return None
    _, ids = store.segments([document.id])
    segments = [one for one in store.fetch(ids.tolist()) if one.document == document.id]
    segments.sort(key=lambda one: (one.start_s or 0.0, one.ordinal))
    lines, speech = store.lines(ids.tolist()), store.speech(ids.tolist())
    own, said = [], []
    for one in segments:
        if spec_of(one.modality).is_inside:
            language = speech[one.id].language if one.id in speech else None
            said.append(Moment(one.start_s, one.end_s, one.text, language))
        else:
            own.append(Moment(one.start_s, one.end_s, one.text, read=lines.get(one.id)))
    return Details(known, document.name, document.caption, document.description, tuple(own), tuple(said))

"""The contract of a store: what an index holds, how it is searched, and how it changes.

A *document* is a source (a file, a member of an archive, a row of a dataset), a *segment* is what has exactly one
vector: a picture or a part of it, a video frame, a passage of a text. Equal sources share segments, which then lie
in several documents, and come once for each of them where they are fetched.

Ids are opaque: int64 numbers that only the store can resolve, and only as long as its `version` stays the same. Nothing
outside of a store knows rows, files or statements. A store that is not a local directory answers over a network, so the
methods take and give many things at once.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderMismatch, UsageError
from mmsearch.core.types import DocumentInfo, EncoderSpec, MediaInfo, Modality
from mmsearch.filters import Spoken, Where
from mmsearch.models.rerankers.base import RerankerSpec

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]
QueryKind = Literal["text", "image"]
"""What a query vector was made of: scores of the two are distributed differently, and approximate indexes are tuned for
each."""
Adjust = Callable[[IdArray, FloatArray], FloatArray]
"""Ids and cosines of some segments, both (n,), to what they are ordered by instead, (n,); −inf: must not come."""


class Segment(NamedTuple):
    """A segment in one of its documents. ``path``: where the document lies now; of an imported one, as it was given.

    ``date`` is the document's, where it was listed by that: when it was taken, else when it was changed.
    """

    id: int
    document: int
    path: str
    modality: Modality
    ordinal: int
    start_s: float | None = None
    end_s: float | None = None
    text: str | None = None
    date: str | None = None


class Speech(NamedTuple):
    """Of a passage of what is said: its language (ISO 639-1), and its words with their start and end in seconds; empty
    where these are not known.
    """

    language: str | None = None
    words: Sequence[tuple[str, float, float]] = ()


class Document(NamedTuple):
    """A document; ``name`` is its path inside of its root. ``caption`` lies beside it, ``description`` in itself."""

    id: int
    path: str
    name: str
    modality: Modality
    size: int
    mtime_ns: int
    caption: str | None
    description: str | None


class Look(NamedTuple):
    """What tells whether two pictures can be the same: their size in pixels and when they were taken."""

    width: int | None
    height: int | None
    taken_at: str | None


@dataclass(frozen=True, eq=False)
class Nearest:
    """The result of one query, best first: ``ids`` int64 (m,) and their cosines ``scores`` float32 (m,), no id twice.

    ``is_all``: nothing else satisfies. ``segments``: what the store has read of them on the way, by id; of the others,
    `Store.fetch` has it.
    """

    ids: IdArray
    scores: FloatArray
    is_all: bool
    segments: Mapping[int, Sequence[Segment]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Holders:
    """Who has a word: the documents about which it is ``written``, and (document, id of the segment) of the pictures in
    which it was ``read``. Both are empty where these are more documents than was asked for; ``count`` is then that
    number + 1.
    """

    written: Sequence[int]
    read: Sequence[tuple[int, int]]
    count: int


class Block(NamedTuple):
    """Segments in the order of their arrival: ``ids`` (n,), ``vectors`` float32 (n, dim), and two bool (n,): which are
    text passages, and which lie in no document any more.
    """

    ids: IdArray
    vectors: FloatArray
    is_text: npt.NDArray[np.bool_]
    is_dead: npt.NDArray[np.bool_]


class Columns(NamedTuple):
    """What calibration has measured of segments, each (n,): see `mmsearch.query.calibrate`. 0 where it has not yet."""

    hubness: FloatArray
    is_text: npt.NDArray[np.bool_]


class CachedTokens(Protocol):
    """Image tokens of a reranker that a store keeps."""

    @property
    def place(self) -> Mapping[int, int]:
        """Where those of each id are, of which there are some."""

    def read(self, places: Sequence[int]) -> npt.NDArray[np.float16]:
        """(n, *token_shape)."""


class SoundWindow(NamedTuple):
    """Some seconds of sound in a document, its cosine with what was asked for, and its vector (dim,). The segment has
    no id that a store resolves: it lies in a space of its own.
    """

    segment: Segment
    cosine: float
    vector: FloatArray


class Sounds(Protocol):
    """The windows of sound that a store keeps, in the space of an encoder of sounds."""

    @property
    def spec(self) -> EncoderSpec:
        """Whose space it is; its ``name`` opens the encoder (`mmsearch.models.sounds`)."""

    def nearest(self, vector: FloatArray, k: int, where: Where | None) -> list[SoundWindow]:
        """The best window of each of the ``k`` nearest documents that satisfy ``where``, best first."""

    def of_document(self, vector: FloatArray, document: int) -> SoundWindow | None:
        """The window of a document that fits best; ``None`` where nothing is known to sound in it."""


class NoTokens:
    """Those of a store that keeps none."""

    place: Mapping[int, int] = MappingProxyType({})

    def read(self, places: Sequence[int]) -> npt.NDArray[np.float16]:
        """There are none."""
        raise KeyError(tuple(places))


_PAGE = 1000
Order = Literal["newest", "path"]

DATASET = "dataset:"
"""How the root of documents begins that need not lie anywhere; a name follows."""


@dataclass(frozen=True)
class NewSegment:
    """A segment to be stored, without its vector. ``kind``: ``speech``, where it is not of the document's modality."""

    start_s: float | None = None
    end_s: float | None = None
    text: str | None = None
    kind: Modality | None = None


@dataclass(frozen=True)
class NewDocument:
    """A document to be stored in place of the one at ``path`` of ``root``, if there is one.

    ``root`` is a folder, or ``dataset:NAME`` where nothing need lie at the path. ``hash`` names the bytes: documents
    with equal ones share their segments, whose order is that of their vectors. ``decoding``: how segments were made of
    them, where a store may be asked for that (`Store.files`); then equal bytes share only those made in the same way.
    ``sidecars``: what lies beside the file and is about it, see `mmsearch.sources.FileEntry`; ``own``: what the file
    says of itself, where ``info`` has something else from there.
    """

    path: str
    modality: Modality
    hash: bytes
    segments: Sequence[NewSegment] = (NewSegment(),)
    root: str = DATASET + "store"
    info: MediaInfo = field(default_factory=MediaInfo)
    size: int = 0
    mtime_ns: int = 0
    caption: str | None = None
    decoding: str = ""
    sidecars: str = ""
    own: MediaInfo | None = None

    @property
    def place(self) -> str:
        """Its absolute path; of one of a dataset, as it was given."""
        return self.path if self.root.startswith(DATASET) else f"{self.root.rstrip('/')}/{self.path}"


class StoredFile(NamedTuple):
    """What is known of a file from the last run; ``path`` is that in its root."""

    id: int
    path: str
    size: int
    mtime_ns: int
    hash: bytes
    decoding: str
    sidecars: str


class StoredContent(NamedTuple):
    """What was made of some bytes, with its vectors, float32 (n, dim). ``info`` is what they say themselves."""

    modality: Modality
    info: MediaInfo
    segments: Sequence[NewSegment]
    vectors: FloatArray


class Exported(NamedTuple):
    """Documents as `Store.upsert` takes them, with the ids (n,) of their segments and their vectors, float32 (n, dim),
    one document after another.
    """

    documents: Sequence[NewDocument]
    ids: IdArray
    vectors: FloatArray


def no_folders(place: str) -> UsageError:
    """What is said of a store that cannot be filled from folders."""
    return UsageError(f"{place} cannot be filled from folders: import an export into it")


class Store(ABC):
    """An index's documents, segments and vectors, of one encoder, in one version. Any number of threads may read at
    once; `refresh` sees what was committed since.
    """

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, for messages."""

    @property
    @abstractmethod
    def spec(self) -> EncoderSpec:
        """The encoder whose vectors are searched."""

    @property
    @abstractmethod
    def version(self) -> Hashable:
        """What this object reads. Whatever changes what a search may give changes it; ids are valid for one version."""

    @property
    @abstractmethod
    def recipe(self) -> str:
        """How vectors are searched: ``"exact"``, where asking for more costs little, or what approximates that."""

    @property
    @abstractmethod
    def modalities(self) -> frozenset[Modality]:
        """Of which kinds there are segments."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many segments have come so far, those among them that are in no document any more."""

    @property
    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Plain values that describe it: ``name``, which opens the encoder, ``recipe``, and the numbers of
        ``documents`` and ``segments``.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Reads the version that is committed now."""

    def reader(self) -> Store:
        """An object that goes on reading the vectors of this encoder, whatever this one turns to with `refresh`; closed
        with this one.
        """
        return self

    def is_stale(self) -> bool:
        """Whether the ids of this version can no longer be resolved: segments were renumbered, or vectors are gone."""
        return False

    def close(self) -> None:  # noqa: B027  (many hold nothing open)
        """Lets go of what is open; the store cannot be used afterwards."""

    def prepare(self) -> None:  # noqa: B027  (what opens quickly need not do anything)
        """Starts to open what the first search needs, where that takes long; returns at once."""

    def prepare_lists(self) -> None:  # noqa: B027  (what keeps none has none to make)
        """Makes those lists of everything that are kept (`listed`, `months`, `folders`), where that takes long."""

    # Vectors

    @abstractmethod
    def search(
        self,
        vectors: FloatArray,
        k: int,
        where: Where | None = None,
        *,
        kind: QueryKind = "text",
        pool: int = 0,
        adjust: Adjust | None = None,
    ) -> list[Nearest]:
        """The nearest segments to each of ``vectors`` (q, dim) of length 1, that satisfy ``where``.

        At least ``k`` of them, whenever so many exist: a segment satisfies where one of its documents does. Of the
        ``pool`` nearest of all at least are looked at. Without ``where`` that many come; with it, the search may end as
        soon as it has ``k``, and goes through the pool in the order of ``adjust``, which is not called without one.
        """

    @abstractmethod
    def fetch(self, ids: Sequence[int], where: Where | None = None) -> list[Segment]:
        """Segments by id, once for each of their documents that satisfies ``where``, in no order."""

    @abstractmethod
    def vectors(self, ids: IdArray) -> FloatArray:
        """Their vectors, float32 (n, dim), in the order of ``ids``."""

    @abstractmethod
    def sample(self, n: int, modalities: Sequence[Modality], seed: int = 0) -> IdArray:
        """At most ``n`` ids of segments of some kinds, ascending: chance decides, always in the same way."""

    @abstractmethod
    def blocks(self, start: int = 0) -> Iterator[Block]:
        """All segments but the first ``start``, a few thousand at once."""

    # Documents

    @abstractmethod
    def segments(
        self, documents: Sequence[int], modalities: Sequence[Modality] | None = None
    ) -> tuple[IdArray, IdArray]:
        """The segments of some documents, of some kinds: ids of documents and of segments, side by side, those of a
        document in their order in it.
        """

    @abstractmethod
    def matching(self, documents: Sequence[int], where: Where) -> set[int]:
        """Which of some documents satisfy it."""

    @abstractmethod
    def count(self, where: Where | None = None) -> int:
        """How many documents satisfy it."""

    @abstractmethod
    def newest(self, where: Where | None, limit: int, offset: int = 0) -> list[Segment]:
        """The first segments of the documents that satisfy it, with their dates: newest first, ties by id."""

    def describe(self, documents: Sequence[int]) -> dict[int, DocumentInfo]:
        """What is known of some documents, by id; those that are gone are left out. A store that does not say better
        knows sizes and dates.
        """
        looks, paths = self.looks(documents), {}
        for one in self.fetch(self.segments(documents)[1].tolist()):
            paths[one.document] = one.path
        found = {}
        for id_ in documents:
            document = self.find(paths[id_]) if id_ in paths else None
            if document is not None:
                look = looks.get(id_, Look(None, None, None))
                info = MediaInfo(look.width, look.height, taken_at=look.taken_at, description=document.description)
                date = look.taken_at or changed_at(document.mtime_ns)
                found[id_] = DocumentInfo(
                    id_, document.path, document.modality, document.size, document.mtime_ns, date, info
                )
        return found

    def listed(self, where: Where | None, order: Order, limit: int, offset: int = 0) -> list[DocumentInfo]:
        """A part of the documents that satisfy it, newest first (as `newest`; what has no date comes last) or by path.

        A store that does not know better goes through all for an order by path.
        """
        if order == "newest":
            ids = [one.document for one in self.newest(where, limit, offset)]
        else:
            every = sorted(self._satisfying(where), key=lambda one: one.path)
            ids = [one.id for one in every[offset : offset + limit]]
        known = self.describe(ids)
        return [known[id_] for id_ in ids if id_ in known]

    def months(self, where: Where | None = None) -> list[tuple[str | None, int]]:
        """Months in which something that satisfies it has its date, as ``2021-05``, the latest first, and how many
        documents do; ``None``, the last, stands for those without a date. A store that does not know better goes
        through all.
        """
        counts: Counter[str | None] = Counter()
        start = 0
        while page := self.newest(where, _PAGE, start):
            known = self.describe([one.document for one in page])
            counts.update(month_of(one.date) for one in known.values())
            start += _PAGE
        return sorted(counts.items(), key=lambda pair: pair[0] or "", reverse=True)

    def folders(self, where: Where | None = None) -> list[tuple[str, int]]:
        """The absolute paths of the folders in which something lies that satisfies it, ascending, and how many
        documents do; of an imported document what stands before the last slash. A store that does not know better goes
        through all.
        """
        counts = Counter(one.path.rpartition("/")[0] for one in self._satisfying(where))
        return sorted(counts.items())

    def _satisfying(self, where: Where | None) -> Iterator[Document]:
        every = self.scan()
        while part := list(islice(every, _PAGE)):
            allowed = None if where is None else self.matching([one.id for one in part], where)
            yield from (one for one in part if allowed is None or one.id in allowed)

    @abstractmethod
    def find(self, path: str) -> Document | None:
        """The document at an absolute path (of an imported one, as it was given)."""

    @abstractmethod
    def scan(self, prefix: str = "") -> Iterator[Document]:
        """All documents at or below an absolute path, by id; all there are without one."""

    @abstractmethod
    def export(self, where: Where | None = None) -> Iterator[Exported]:
        """Everything that makes a store of the documents that satisfy it, a few thousand segments at once: what was
        committed when it began, less what is removed meanwhile.
        """

    @abstractmethod
    def looks(self, documents: Sequence[int]) -> dict[int, Look]:
        """Sizes and dates of documents, by id."""

    def values(self, field: str, limit: int) -> list[tuple[str, int]]:
        """The most frequent values of a field of documents (see `mmsearch.filters.tree`; also ``folder`` and ``name``
        of a file), and how many have each: for messages. Nothing where the store cannot tell.
        """
        return []

    def span(self, field: str) -> tuple[Any, Any] | None:
        """The least and the greatest value of a field, ``date`` as ISO 8601; ``None`` where there is none."""
        return None

    # Words

    @abstractmethod
    def words(self, terms: Sequence[Sequence[str]], limit: int) -> list[Holders]:
        """Who has each of ``terms``, given as the forms of one word, most usual first: as tokens in a row (see
        `mmsearch.core.letters`); where nobody has, as a part of a word of a file's path in its root (`part_of_name` of
        the first form; not of an imported row's). See `Holders` for ``limit``.
        """

    @abstractmethod
    def written(self, document: int) -> dict[str, str]:
        """What is known of a document in words: path, folder, caption and description, where it has them."""

    def lines(self, ids: Sequence[int]) -> dict[int, str]:
        """The lines that were read in pictures, by id of the segment; those without any are left out."""
        return {}

    # Speech

    def spoken(self, wanted: Sequence[Spoken]) -> IdArray:
        """The passages of speech that satisfy all of ``wanted``, ascending."""
        return np.zeros(0, dtype=np.int64)

    def speech(self, ids: Sequence[int]) -> dict[int, Speech]:
        """Of those of some segments that are passages of speech, by id."""
        return {}

    # Sounds

    def sounds(self) -> Sounds | None:
        """What sounds in videos and recordings; ``None`` where nobody listened."""
        return None

    # What others keep with it

    @abstractmethod
    def columns(self, ids: IdArray) -> Columns:
        """What calibration has measured of segments."""

    @abstractmethod
    def calibration(self) -> tuple[Mapping[str, npt.NDArray[Any]], int]:
        """What `keep_calibration` kept, as far as it is of this version's vectors, and how many segments, the first
        ones, it covers; nothing and 0 where there is none.
        """

    @abstractmethod
    def keep_calibration(self, values: Mapping[str, npt.NDArray[Any]], columns: Columns, start: int) -> None:
        """Keeps ``values``, and ``columns`` of all segments but the first ``start``: for this object, and with
        the store where that can be written to.
        """

    def tokens(self, reranker: RerankerSpec, ids: Sequence[int]) -> CachedTokens:
        """What is kept of pictures for a reranker."""
        return NoTokens()

    # Changes

    @abstractmethod
    def upsert(self, documents: Sequence[NewDocument], vectors: FloatArray) -> None:
        """Stores documents, and ``vectors`` (n, dim) of their segments one after another; all of them or none.

        Raises:
            VectorError: another shape, or values that are not finite.
        """

    @abstractmethod
    def delete(self, where: Where | None) -> int:
        """Removes the documents that satisfy it (``None``: all); returns how many."""

    def drop(self, documents: Sequence[int]) -> int:
        """Removes documents by id; returns how many there were."""
        raise UsageError(f"{self.place} cannot remove single documents")

    # Files. What is indexed from folders must be found again by path and by content. Index directories have more of
    # this in their catalogue, which `mmsearch.pipeline` reads.

    def files(self, root: str, below: str = "") -> Iterator[StoredFile]:
        """The documents at or below a path in a root, in no order."""
        raise no_folders(self.place)

    def contents(self, keys: Sequence[tuple[bytes, str]]) -> dict[tuple[bytes, str], StoredContent]:
        """Of some contents, by hash and decoding, those that there are."""
        raise no_folders(self.place)

    def remembered(self, kind: str, root: str = "") -> dict[str, list[Any]]:
        """What `remember` kept of a kind, by path; of all roots, by root and path with a NUL between, without one."""
        return {}

    def remember(self, kind: str, root: str, values: Mapping[str, list[Any] | None]) -> None:
        """Keeps plain values by path: folders that were indexed, files that were skipped. ``None`` forgets."""
        raise no_folders(self.place)

    def beside(self, spec: EncoderSpec, name: str) -> Store:
        """The store of the vectors of another encoder beside these, made where there is none: to be filled, and then
        switched to. Closed with this one.
        """
        raise UsageError(f"{self.place} has room for the vectors of one encoder alone")

    def damaged(self) -> Iterator[tuple[str, str]]:
        """Documents that are not whole, by path, and what is wrong with each."""
        return iter(())

    @abstractmethod
    def switch(self, spec: EncoderSpec, name: str, *, partly: bool = False) -> None:
        """Lets the vectors of another encoder be searched, which must be there; ``name`` opens it.

        Raises:
            UsageError: there are none of it, or not of all documents, unless ``partly``.
        """


class StoreFamily(ABC):
    """Stores whose addresses have one scheme, such as ``local:PATH``. Methods get the whole address."""

    takes_folders: bool = False
    """Whether they can be filled from folders: see `Store.files`."""

    @abstractmethod
    def exists(self, address: str) -> bool:
        """Whether there is a store at an address, whole or damaged."""

    @abstractmethod
    def open(self, address: str) -> Store:
        """Opens the store at an address.

        Raises:
            IndexMissing, IndexTooNew, IndexDamaged, or another `MmsearchError`: one sentence, with what to do.
        """

    @abstractmethod
    def create(self, address: str, name: str, spec: EncoderSpec) -> Store:
        """Makes an empty store for the vectors of an encoder, which ``name`` opens again, and opens it.

        Raises:
            UsageError: it cannot be made there.
        """


def changed_at(mtime_ns: int) -> str | None:
    """When a file was changed, ISO 8601 local time; ``None`` for 0, which stands for what is no file."""
    if not mtime_ns:
        return None
    try:
        return datetime.fromtimestamp(mtime_ns // 10**9).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return None


def month_of(date: str | None) -> str | None:
    """``2021-05`` of an ISO 8601 date; ``None`` where it has no month."""
    month = (date or "")[:7]
    return month if re.fullmatch(r"[0-9]{4}-[0-9]{2}", month) else None


def scores_of(store: Store, ids: IdArray, vectors: Sequence[FloatArray]) -> list[FloatArray]:
    """Cosines of some segments with each of a few vectors, (n,) each, a part of the segments at a time."""
    scores = [np.zeros(len(ids), dtype=np.float32) for _ in vectors]
    for start in range(0, len(ids) if scores else 0, 8192):
        block = store.vectors(ids[start : start + 8192])
        for each, vector in zip(scores, vectors, strict=True):
            each[start : start + 8192] = block @ vector
    return scores


def same_encoder(one: EncoderSpec, other: EncoderSpec) -> bool:
    """Whether vectors of both can be compared: same weights, same preprocessing, whatever they are called."""
    return (one.digest, one.preprocessing, one.dim) == (other.digest, other.preprocessing, other.dim)


def check_encoder(place: str, spec: EncoderSpec, given: EncoderSpec) -> None:
    """Refuses another encoder than that of the vectors at ``place``.

    Raises:
        EncoderMismatch: naming both.
    """
    if not same_encoder(spec, given):
        # Of a name that stands for other weights by now, the first ones are not at hand.
        advice = "change to these" if spec.name == given.name else "use the first one, change to the other"
        raise EncoderMismatch(
            f"the index {place} was made with {spec.describe()}; the encoder given is {given.describe()}. "
            f"Vectors of two encoders cannot be compared: {advice} with `mmsearch switch {given.name}`, or give "
            "another --index"
        )

"""A Milvus server, or a file of milvus-lite, as a store: a collection for each embedding space, an alias for the one
that answers, a side collection for what is kept beside.

Ids are stable (`mmsearch.store.milvus.rows`), so they stay valid from one version to the next; what ends them is
another collection behind the alias. Writing is an upsert by id and may be repeated. One writer at a time keeps the
counts of copies right; several that write disjoint documents lose and double nothing.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import IndexDamaged, IndexMissing, IndexTooNew, StoreUnreachable, UsageError, VectorError
from mmsearch.core.letters import has_digit, has_tokens, part_of_name, tokens_of
from mmsearch.core.modalities import group_of
from mmsearch.core.types import DocumentInfo, EncoderSpec, Modality
from mmsearch.filters import Compare, Phrase, Spoken, Where, holds
from mmsearch.filters.tree import value_of
from mmsearch.store.base import (
    Adjust,
    Block,
    Columns,
    Document,
    Exported,
    FloatArray,
    Holders,
    IdArray,
    Look,
    Nearest,
    NewDocument,
    Order,
    QueryKind,
    Segment,
    Speech,
    Store,
    StoredContent,
    StoredFile,
    StoreFamily,
    changed_at,
    month_of,
)
from mmsearch.store.milvus import rows as made
from mmsearch.store.milvus.address import Address, parse
from mmsearch.store.milvus.notes import Notes
from mmsearch.store.milvus.rows import (
    READ,
    Row,
    document_id,
    document_of,
    name_of,
    row_id,
    row_of,
    segment_id,
    texts_of,
)
from mmsearch.store.milvus.server import LIMIT, PAGE, Entity, Server
from mmsearch.store.milvus.where import (
    ALWAYS,
    any_of,
    beginning_with,
    has_any_token,
    joined,
    quoted,
    render,
    resolved,
)
from mmsearch.store.milvus.where import has_tokens as having_tokens

SCHEMA = 1
"""Of the rows; raised when an older mmsearch could not read them."""
IDS = 1000
"""Ids named in one expression."""
WRITTEN = 1000
"""Rows written at once."""
UNFELT = 1e-6
"""Hubness that changes less orders no hits anew."""
REMEMBERED = 20_000
"""Rows that are kept in mind while a version lasts."""
SCANNED = 200_000
"""Documents of which `values` and `span` tell: more would be felt."""
VECTORS = 1024
"""Rows read at once with their vectors."""
Check = Callable[[Row], bool]


class _Condition(NamedTuple):
    """What a filter says: an expression, and what its rows are checked by, if it says too little."""

    expression: str
    check: Check | None


class _Space(NamedTuple):
    """A collection and what is known of it."""

    collection: str
    spec: EncoderSpec
    name: str
    has_infix: bool


class _Shared:
    """What the objects of one connection know together: which collection answered when one of them last looked."""

    def __init__(self, server: Server, notes: Notes) -> None:
        self.server, self.notes = server, notes
        self.answering = ""
        self.readers = 1
        self.lock = threading.Lock()


class MilvusStore(Store):
    """The collection behind an alias."""

    def __init__(self, shared: _Shared, space: _Space, *, follows: bool = True) -> None:
        """``follows``: whether `refresh` goes on to the collection that the alias means by then."""
        self._shared, self._space, self._follows = shared, space, follows
        self._server, self._notes = shared.server, shared.notes
        self._tenant = self._server.address.tenant
        self._only = f"tenant == {quoted(self._tenant)}" if self._tenant else ""
        self._token = ""
        self._lasts()
        self._token = self._read_token(strong=True)

    def _lasts(self) -> None:
        """Nothing is known of the version yet."""
        self._cache = _Cache()

    # What it is

    @property
    def address(self) -> Address:
        """Where it is."""
        return self._server.address

    @property
    def place(self) -> str:
        """Its address."""
        return self._server.address.text

    @property
    def collection(self) -> str:
        """The collection that is read."""
        return self._space.collection

    @property
    def round_trips(self) -> int:
        """How many requests have been answered so far."""
        return self._server.calls

    @property
    def spec(self) -> EncoderSpec:
        """The encoder whose vectors are searched."""
        return self._space.spec

    @property
    def version(self) -> Hashable:
        """The collection, and a text that each change replaces."""
        return (self._space.collection, self._token)

    @property
    def recipe(self) -> str:
        """``exact``, or ``hnsw``."""
        return "exact" if _index_of(self._server, self._space.collection) == "flat" else "hnsw"

    @property
    def modalities(self) -> frozenset[Modality]:
        """Of which kinds there are segments."""
        if self._cache.kinds is None:
            found: set[str] = set()
            while True:
                others = f"kind not in {json.dumps(sorted(found))}" if found else ""
                row = self._server.query(self.collection, self._mine(others), ["kind"], 1)
                if not row:
                    break
                found.add(row[0]["kind"])
            self._cache.kinds = frozenset(found)
        return self._cache.kinds

    @property
    def size(self) -> int:
        """Segments; those that no document has any more are not kept."""
        return self._count("is_copy == false")

    @property
    def metadata(self) -> dict[str, Any]:
        """See `Store.metadata`; ``server``: its version."""
        return {
            "name": self._space.name, "recipe": self.recipe, "documents": self.count(), "segments": self.size,
            "server": self._server.version,
        }  # fmt: skip

    def refresh(self) -> None:
        """See `Store.refresh`: one request, and more where something has changed."""
        token = self._read_token()
        if token == self._token:
            return
        if self._follows:
            space = _answering(self._server, self._notes)
            self._shared.answering = space.collection
            self._space = space
            token = self._read_token()
        self._token = token
        self._lasts()
        self._server.count(self.collection, self._mine(""), strong=True)  # from now on, all of that version is seen

    def _read_token(self, *, strong: bool = False) -> str:
        keys = [f"version:{self.collection}", "answering"] if self._follows else [f"version:{self.collection}"]
        found = self._notes.read(keys, strong=strong)
        return "/".join(found.get(key, "") for key in keys)

    def _changed(self) -> None:
        """Tells everybody that there is another version."""
        self._notes.write({f"version:{self.collection}": uuid.uuid4().hex})
        self._token = self._read_token()
        self._cache.clear()  # in place: what this one was made of, or was made of it, must not count as before
        self._lasts()

    def reader(self) -> MilvusStore:
        """See `Store.reader`."""
        with self._shared.lock:
            self._shared.readers += 1
        other = MilvusStore.__new__(MilvusStore)
        other.__dict__ |= self.__dict__
        other._follows = False
        return other

    def is_stale(self) -> bool:
        """Whether another collection answers by now, as far as is known here."""
        return self._shared.answering != self.collection

    def close(self) -> None:
        """Ends the connection, with the last that uses it."""
        with self._shared.lock:
            self._shared.readers -= 1
            if self._follows:
                self._server.close()

    # Conditions

    def _mine(self, expression: str) -> str:
        """All that is ever asked passes here: rows of another tenant are never among them."""
        return joined([self._only, expression])

    def _condition(self, where: Where | None, *, of_rows: bool = False) -> _Condition:
        if where is None:
            return _Condition(ALWAYS, None)
        plain = resolved(where, self._having, self._saying)
        rendered = render(plain, has_infix=self._space.has_infix, of_rows=of_rows)
        if rendered.is_exact:
            return _Condition(rendered.text, None)
        return _Condition(rendered.text, lambda row: holds(plain, row.fields()))

    def _having(self, phrase: Phrase) -> frozenset[int]:
        """The documents with a phrase; see `mmsearch.filters.tree.Phrase`."""
        wanted = tokens_of(phrase.words)
        found = {
            row.document for row in self._rows(having_tokens([f"w{token}" for token in wanted]))
            if any(has_tokens(tokens_of(text), wanted) for text in texts_of(row))
        } if wanted else set()  # fmt: skip
        part = part_of_name(phrase.words) if has_digit(phrase.words) else None
        if part is not None:
            found |= {row.document for row in self._rows(self._with_part(part)) if _has_part(row, part)}
        return frozenset(found)

    def _with_part(self, part: str) -> str:
        """The path has a part: first rows of which it may be true."""
        if self._space.has_infix:
            return joined(["ordinal == 0", f'letters like "%{part}%"'])
        return joined(["ordinal == 0", having_tokens([f"g{part[at : at + 3]}" for at in range(len(part) - 2)])])

    def _saying(self, spoken: Spoken) -> frozenset[int]:
        return frozenset(row.document for row in self._spoken(spoken))

    def _spoken(self, spoken: Spoken) -> list[Row]:
        if spoken.language is not None:
            return []  # the language of a passage is not kept
        wanted = tokens_of(spoken.words or "")
        if spoken.words is not None and not wanted:
            return []
        expression = joined(['kind == "speech"', having_tokens([f"w{one}" for one in wanted]) if wanted else ""])
        return [
            row for row in self._rows(expression)
            if not wanted or has_tokens(tokens_of(row.own.text or ""), wanted)
        ]  # fmt: skip

    # Rows

    def _entities(self, expression: str, columns: Sequence[str], size: int = PAGE) -> Iterator[list[Entity]]:
        return self._server.pages(self.collection, self._mine(expression), columns, size)

    def _rows(self, expression: str, check: Check | None = None) -> list[Row]:
        found = [row_of(one) for page in self._entities(expression, READ) for one in page]
        return found if check is None else [row for row in found if check(row)]

    def _rows_of(self, field: str, ids: Iterable[int], condition: _Condition, *columns: str) -> Iterator[list[Entity]]:
        """Rows of which a field is one of some ids, with the columns of `READ` and others."""
        wanted = list(dict.fromkeys(map(int, ids)))
        for start in range(0, len(wanted), IDS):
            named = f"{field} in {json.dumps(wanted[start : start + IDS])}"
            yield from self._entities(joined([named, condition.expression]), [*READ, *columns])

    def _count(self, expression: str) -> int:
        if expression not in self._cache.counts:
            self._cache.counts[expression] = self._server.count(self.collection, self._mine(expression))
        return self._cache.counts[expression]

    # Vectors

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
        """See `Store.search`. More rows than a server gives for one search (16,384) are looked at one by one."""
        if not len(vectors):
            return []
        condition = self._condition(where, of_rows=True)
        wanted = max(k, pool)
        first = min(LIMIT, wanted + wanted // 8 + 8)
        found = self._nearest_rows(vectors, first, condition.expression)
        enough, adjusting = (wanted, None) if where is None else (k, adjust)
        return [
            self._nearest(vector, rows, first, enough, where, condition, adjusting)
            for vector, rows in zip(vectors, found, strict=True)
        ]

    def _nearest_rows(
        self, vectors: FloatArray, limit: int, expression: str, ef: int = 0
    ) -> list[list[tuple[float, Row]]]:
        size = max(1, LIMIT // limit)  # what comes back at once
        parts = (vectors[start : start + size] for start in range(0, len(vectors), size))
        return [
            [(score, row_of(entity)) for score, entity in rows]
            for part in parts
            for rows in self._server.search(self.collection, part, limit, self._mine(expression), READ, ef)
        ]

    def _nearest(
        self, vector: FloatArray, rows: list[tuple[float, Row]], limit: int, enough: int, where: Where | None,
        condition: _Condition, adjust: Adjust | None,
    ) -> Nearest:  # fmt: skip
        """Asks for more, until there is enough or nothing else."""
        while True:
            is_all = len(rows) < limit and self._is_all(len(rows), condition.expression)
            if not is_all and len(rows) < limit:  # an approximate index may give up early
                [more] = self._nearest_rows(vector[None], limit, condition.expression, ef=LIMIT)
                is_all = len(more) < limit and self._is_all(len(more), condition.expression)
                if len(more) < limit and not is_all:
                    return self._one_by_one(vector, condition, adjust)
                rows = more
            near = self._of_rows(rows, where, condition.check, is_all=is_all)
            if adjust is not None:
                near = _kept(near, adjust)
            if len(near) >= enough or is_all:
                return near
            if limit >= LIMIT:
                return self._one_by_one(vector, condition, adjust)
            limit = min(LIMIT, 4 * limit)
            [rows] = self._nearest_rows(vector[None], limit, condition.expression)

    def _is_all(self, found: int, expression: str) -> bool:
        """Whether so few rows are all of which an expression is true."""
        return found >= self._count(expression)

    def _of_rows(
        self, rows: list[tuple[float, Row]], where: Where | None, check: Check | None, *, is_all: bool
    ) -> Nearest:
        """Segments, in the order of their scores. Rows of equal scores at the end may have others of their segments
        behind them, so those are not told.
        """
        last = -np.inf if is_all or not rows else rows[-1][0]
        scores: dict[int, float] = {}
        holders: dict[int, list[Row]] = {}
        others: list[Row] = []
        for score, row in rows:
            if check is None or check(row):
                scores.setdefault(row.segment, score)
                (holders.setdefault(row.segment, []) if score > last else others).append(row)
        ids = np.fromiter(scores, np.int64, len(scores))
        values = np.fromiter(scores.values(), np.float32, len(scores))
        order = np.lexsort((ids, -values))
        self._cache.known.keep(where, holders)
        self._cache.known.keep_documents(others)  # what was measured of them need not be asked for
        told = {id_: [row.as_segment() for row in own] for id_, own in holders.items()}
        return Nearest(ids[order], values[order], is_all, told)

    def _one_by_one(self, vector: FloatArray, condition: _Condition, adjust: Adjust | None) -> Nearest:
        """All segments that satisfy, compared here."""
        scores: dict[int, float] = {}
        columns = ["segment", "vector"] if condition.check is None else [*READ, "vector"]
        for page in self._entities(condition.expression, columns, VECTORS):
            kept = page if condition.check is None else [one for one in page if condition.check(row_of(one))]
            if kept:
                cosines = _vectors_of(kept) @ vector
                scores.update(zip((one["segment"] for one in kept), cosines.tolist(), strict=True))
        ids = np.fromiter(scores, np.int64, len(scores))
        values = np.fromiter(scores.values(), np.float32, len(scores))
        order = np.lexsort((ids, -values))
        near = Nearest(ids[order], values[order], True)
        return near if adjust is None else _kept(near, adjust)

    def fetch(self, ids: Sequence[int], where: Where | None = None) -> list[Segment]:
        """See `Store.fetch`; what a search has just read is not read again."""
        known = self._cache.known.of(where, ids)
        missing = [id_ for id_ in dict.fromkeys(ids) if id_ not in known]
        if missing:
            condition = self._condition(where)
            holders: dict[int, list[Row]] = {id_: [] for id_ in missing}
            for page in self._rows_of("segment", missing, condition):
                for row in map(row_of, page):
                    if condition.check is None or condition.check(row):
                        holders[row.segment].append(row)
            self._cache.known.keep(where, holders)
            known |= holders
        return [row.as_segment() for id_ in dict.fromkeys(ids) for row in known[id_]]

    def vectors(self, ids: IdArray) -> FloatArray:
        """See `Store.vectors`; what their documents are is read on the way."""
        found: dict[int, FloatArray] = {}
        holders: dict[int, list[Row]] = {}
        wanted = np.unique(ids).tolist()
        for start in range(0, len(wanted), VECTORS):
            part = wanted[start : start + VECTORS]
            for page in self._rows_of("segment", part, _Condition(ALWAYS, None), "vector"):
                values = _vectors_of(page)
                for entity, vector in zip(page, values, strict=True):
                    found[entity["segment"]] = vector
                    holders.setdefault(entity["segment"], []).append(row_of(entity))
        self._cache.known.keep(None, holders)
        if len(found) < len(wanted):
            raise IndexDamaged(
                f"{self.place} lacks {len(wanted) - len(found)} segments that were asked for: search again"
            )
        return np.stack([found[id_] for id_ in ids.tolist()]) if len(ids) else np.zeros((0, self.spec.dim), np.float32)

    def sample(self, n: int, modalities: Sequence[Modality], seed: int = 0) -> IdArray:
        """See `Store.sample`. Ids are hashes, so those that follow a number drawn by chance are drawn by chance."""
        kinds = joined(["is_copy == false", f"kind in {json.dumps(sorted(modalities))}"])
        start = int(np.random.default_rng(seed).integers(2**63 - 1))
        found: list[int] = []
        for side in (f"id >= {start}", f"id < {start}"):
            for page in self._entities(joined([side, kinds]), ["segment"], min(LIMIT, max(1, n - len(found)))):
                found += [one["segment"] for one in page]
                if len(found) >= n:
                    break
            if len(found) >= n:
                break
        return np.sort(np.array(found[:n], dtype=np.int64))

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """See `Store.blocks`; no segment is without a document."""
        ids = self._in_order(start)
        for first in range(0, len(ids), VECTORS):
            part = ids[first : first + VECTORS]
            vectors = self.vectors(part)
            kinds = {
                row.segment: row.kind for rows in self._cache.known.of(None, part.tolist()).values() for row in rows
            }
            is_text = np.array([group_of(kinds[id_]) == "text" for id_ in part.tolist()], dtype=bool)
            yield Block(part, vectors, is_text, np.zeros(len(part), dtype=bool))

    def _in_order(self, start: int) -> IdArray:
        """The segments but the first ``start``, in the order of their arrival; those that calibration has measured come
        first, as it begins with the first.
        """
        covered = self._covered()
        rest = start == covered and start > 0
        expression = joined(["is_copy == false", "is_measured == false" if rest else ""])
        pairs: list[tuple[int, int]] = []
        for page in self._entities(expression, ["arrival", "segment"], LIMIT):
            pairs += [(one["arrival"], one["segment"]) for one in page]
        pairs.sort()
        return np.array([segment for _, segment in (pairs if rest else pairs[start:])], dtype=np.int64)

    # Documents

    def segments(
        self, documents: Sequence[int], modalities: Sequence[Modality] | None = None
    ) -> tuple[IdArray, IdArray]:
        """See `Store.segments`."""
        known = self._cache.known.documents(documents)
        rows = [row for own in known.values() for row in own]
        missing = [id_ for id_ in dict.fromkeys(documents) if id_ not in known]
        for page in self._rows_of("document", missing, _Condition(ALWAYS, None)):
            rows += map(row_of, page)
        kept = [row for row in rows if modalities is None or row.kind in modalities]
        kept.sort(key=lambda row: (row.document, row.ordinal))
        holders = np.array([row.document for row in kept], dtype=np.int64)
        return holders, np.array([row.segment for row in kept], dtype=np.int64)

    def matching(self, documents: Sequence[int], where: Where) -> set[int]:
        """See `Store.matching`."""
        condition = self._condition(where)
        only = condition._replace(expression=joined(["ordinal == 0", condition.expression]))
        return {
            row.document for page in self._rows_of("document", documents, only) for row in map(row_of, page)
            if only.check is None or only.check(row)
        }  # fmt: skip

    def count(self, where: Where | None = None) -> int:
        """See `Store.count`."""
        condition = self._condition(where)
        if condition.check is None:
            return self._count(joined(["ordinal == 0", condition.expression]))
        return sum(1 for _ in self._first_rows(where))

    def newest(self, where: Where | None, limit: int, offset: int = 0) -> list[Segment]:
        """See `Store.newest`. No server orders by a field, so the date from which on there are enough is searched for,
        by counting.
        """
        return [row.as_segment(date or None) for date, row in self._newest(where, limit, offset)]

    def _newest(self, where: Where | None, limit: int, offset: int) -> list[tuple[str, Row]]:
        condition, wanted = self._condition(where), limit + offset
        dated: list[tuple[str, int, Row]] = []
        for page in self._entities(self._recent(condition, wanted), [*READ, "arrival"]):
            for one in page:
                row = row_of(one)
                if condition.check is None or condition.check(row):
                    dated.append((_date_of(row) or "", one["arrival"], row))
        dated.sort(key=lambda one: one[1])
        dated.sort(key=lambda one: one[0], reverse=True)
        return [(date, row) for date, _, row in dated[offset:wanted]]

    def _first_rows(self, where: Where | None) -> Iterator[Row]:
        """The first rows of the documents that satisfy it."""
        condition = self._condition(where)
        for page in self._entities(joined(["ordinal == 0", condition.expression]), READ):
            yield from (row for row in map(row_of, page) if condition.check is None or condition.check(row))

    def listed(self, where: Where | None, order: Order, limit: int, offset: int = 0) -> list[DocumentInfo]:
        """See `Store.listed`; an order by path goes through all."""
        if order == "newest":
            return [_described(row) for _, row in self._newest(where, limit, offset)]
        rows = sorted(self._first_rows(where), key=lambda row: row.place)
        return [_described(row) for row in rows[offset : offset + limit]]

    def months(self, where: Where | None = None) -> list[tuple[str | None, int]]:
        """See `Store.months`; goes through all."""
        counts = Counter(month_of(_date_of(row)) for row in self._first_rows(where))
        return sorted(counts.items(), key=lambda pair: pair[0] or "", reverse=True)

    def folders(self, where: Where | None = None) -> list[tuple[str, int]]:
        """See `Store.folders`; goes through all."""
        return sorted(Counter(row.place.rpartition("/")[0] for row in self._first_rows(where)).items())

    def _recent(self, condition: _Condition, wanted: int) -> str:
        """First rows among which are the ``wanted`` newest."""
        firsts = joined(["ordinal == 0", condition.expression])
        if condition.check is not None or self._count(firsts) <= max(4 * wanted, PAGE):
            return firsts
        known = joined([firsts, '(taken_at != "" or mtime_ns != 0)'])  # what has no date comes last
        if self._count(known) < wanted:
            return firsts
        early, late = datetime(1800, 1, 1), datetime(2200, 1, 1)
        chosen = known
        while late - early > timedelta(minutes=1):
            middle = (early + (late - early) / 2).replace(microsecond=0)
            since = joined([known, render(Compare("date", ">=", middle), has_infix=False).text])
            count = self._server.count(self.collection, self._mine(since))
            if count < wanted:
                late = middle
                continue
            early, chosen = middle, since
            if count <= max(4 * wanted, PAGE):
                break
        return chosen

    def find(self, path: str) -> Document | None:
        """See `Store.find`."""
        found = list(self._rows(joined(["ordinal == 0", f"place == {quoted(made.nfc(path))}"])))
        exact = [row for row in found if row.place == path]
        return _document(exact[0]) if exact else None

    def scan(self, prefix: str = "") -> Iterator[Document]:
        """See `Store.scan`."""
        below = prefix.rstrip("/")
        named = made.nfc(below)
        within = f"(place == {quoted(named)} or {beginning_with('place', named + '/')})" if prefix else ""
        for page in self._entities(joined(["ordinal == 0", within]), READ):
            yield from (_document(row) for row in map(row_of, page))

    def export(self, where: Where | None = None) -> Iterator[Exported]:
        """See `Store.export`."""
        condition = self._condition(where)
        expression = joined(["ordinal == 0", condition.expression])
        for page in self._entities(expression, READ, VECTORS):
            firsts = [row for row in map(row_of, page) if condition.check is None or condition.check(row)]
            # documents may be long: a few at once
            start = 0
            while start < len(firsts):
                end, segments = start, 0
                while end < len(firsts) and (end == start or segments + firsts[end].count <= VECTORS):
                    segments += firsts[end].count
                    end += 1
                yield from self._exported([row.document for row in firsts[start:end]])
                start = end

    def _exported(self, documents: Sequence[int]) -> Iterator[Exported]:
        found: dict[int, list[tuple[Row, FloatArray]]] = {id_: [] for id_ in documents}
        for page in self._rows_of("document", documents, _Condition(ALWAYS, None), "vector"):
            for entity, vector in zip(page, _vectors_of(page), strict=True):
                row = row_of(entity)
                found[row.document].append((row, vector))
        whole = [sorted(own, key=lambda one: one[0].ordinal) for own in found.values() if own]
        whole = [own for own in whole if own[0][0].ordinal == 0 and len(own) >= own[0][0].count]
        if whole:
            parts = [one for own in whole for one in own]
            ids = np.array([row.segment for row, _ in parts], dtype=np.int64)
            vectors = np.stack([vector for _, vector in parts])
            yield Exported([document_of(row for row, _ in own) for own in whole], ids, vectors)

    def looks(self, documents: Sequence[int]) -> dict[int, Look]:
        """See `Store.looks`."""
        return {
            row.document: Look(*(row.described.get(name) for name in Look._fields))
            for row in self._firsts(documents)
        }  # fmt: skip

    def _firsts(self, documents: Sequence[int]) -> Iterator[Row]:
        """The first rows of documents."""
        known = self._cache.known.documents(documents)
        yield from (own[0] for own in known.values())
        missing = [id_ for id_ in documents if id_ not in known]
        for page in self._rows_of("document", missing, _Condition("ordinal == 0", None)):
            yield from map(row_of, page)

    def describe(self, documents: Sequence[int]) -> dict[int, DocumentInfo]:
        """See `Store.describe`."""
        return {row.document: _described(row) for row in self._firsts(documents)}

    def values(self, field: str, limit: int) -> list[tuple[str, int]]:
        """See `Store.values`; nothing of a large store, since no server counts by value."""
        counts: dict[str, int] = {}
        for value in self._field(field):
            counts[str(value)] = counts.get(str(value), 0) + 1
        return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]

    def span(self, field: str) -> tuple[Any, Any] | None:
        """See `Store.span`; nothing of a large store."""
        known = self._field(field)
        return (min(known), max(known)) if known else None

    def _field(self, field: str) -> list[Any]:
        if self.count() > SCANNED:
            return []
        found = []
        for row in self._rows("ordinal == 0"):
            values = row.fields()
            values |= dict(zip(("folder", "name"), values["path"].rpartition("/")[::2], strict=True))
            value = _date_of(row) if field == "date" else value_of(values, field)
            found += [] if value is None else [value]
        return found

    # Words

    def words(self, terms: Sequence[Sequence[str]], limit: int) -> list[Holders]:
        """See `Store.words`: one request where few documents have them. Parts of names without digits are asked for
        along with the words, as most queries have some word that is written nowhere; those with digits, of which many
        names may have one, only where the word is not written.
        """
        parts = [part_of_name(forms[0]) for forms in terms]
        early = [None if part is None or has_digit(part) else part for part in parts]
        written, is_whole = self._documents_with([[tokens_of(form) for form in forms] for forms in terms], early, limit)
        late = [
            None if held or (is_whole and part == asked) else part
            for held, part, asked in zip(written, parts, early, strict=True)
        ]
        if any(late):
            rows = self._rows(any_of([self._with_part(part) for part in dict.fromkeys(filter(None, late))]))
            self._cache.known.keep_documents(rows)
            for place, part in enumerate(late):
                if part is not None:
                    written[place] = {row.document for row in rows if _has_part(row, part)}
        return [
            Holders(sorted(held), (), len(held)) if len(held) <= limit else Holders((), (), limit + 1)
            for held in written
        ]

    def _documents_with(
        self, terms: Sequence[Sequence[list[str]]], parts: Sequence[str | None], limit: int
    ) -> tuple[list[set[int]], bool]:
        """The documents that have any form of each term; more than ``limit`` of them, where these are not all. With
        true, those of a term that is not written are the documents of which the name has its part.
        """

        def expression(forms: Sequence[list[str]]) -> str:
            single = [f"w{form[0]}" for form in forms if len(form) == 1]
            several = [having_tokens([f"w{token}" for token in form]) for form in forms if len(form) > 1]
            return any_of([*([has_any_token(single)] if single else []), *several])

        said = [[form for form in forms if form] for forms in terms]
        most = min(LIMIT, 2 * (limit + 1) * max(1, len(terms)))
        if not any(said):
            return [set() for _ in terms], False
        everything = [expression([form for forms in said for form in forms])]
        everything += [self._with_part(part) for part in dict.fromkeys(filter(None, parts))]
        found = self._server.query(self.collection, self._mine(any_of(everything)), READ, most)
        if len(found) < most:
            rows = [row_of(one) for one in found]
            self._cache.known.keep_documents(rows)
            return [
                _having_any(rows, forms) or {row.document for row in rows if part is not None and _has_part(row, part)}
                for forms, part in zip(said, parts, strict=True)
            ], True
        held = []
        for forms in said:
            documents: set[int] = set()
            for page in self._entities(expression(forms), READ, LIMIT) if forms else ():
                documents |= _having_any([row_of(one) for one in page], forms)
                if len(documents) > limit:
                    break
            held.append(documents)
        return held, False

    def written(self, document: int) -> dict[str, str]:
        """See `Store.written`."""
        for row in self._firsts([document]):
            texts = made.texts_about(document_of([row]))
            return {name: text for name, text in texts.items() if text}
        return {}

    # Speech

    def spoken(self, wanted: Sequence[Spoken]) -> IdArray:
        """See `Store.spoken`."""
        sets = [{row.segment for row in self._spoken(one)} for one in wanted]
        found = set.intersection(*sets) if sets else set()
        return np.array(sorted(found), dtype=np.int64)

    def speech(self, ids: Sequence[int]) -> dict[int, Speech]:
        """See `Store.speech`; neither languages nor the times of words are kept."""
        return {
            one.id: Speech() for one in (self.fetch(ids) if "speech" in self.modalities else ())
            if one.modality == "speech"
        }  # fmt: skip

    # What others keep with it

    def columns(self, ids: IdArray) -> Columns:
        """See `Store.columns`; known of what a search has just read."""
        known = self._cache.known.columns(ids.tolist())
        missing = [id_ for id_ in dict.fromkeys(ids.tolist()) if id_ not in known]
        for page in self._rows_of("segment", missing, _Condition("is_copy == false", None)):
            known |= {one["segment"]: (float(one["hubness"]), bool(one["is_text"])) for one in page}
        rows = [known.get(id_, (0.0, False)) for id_ in ids.tolist()]
        return Columns(np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows], bool))

    def calibration(self) -> tuple[Mapping[str, npt.NDArray[Any]], int]:
        """See `Store.calibration`."""
        if self._cache.arrays is None:
            self._cache.arrays = self._notes.arrays("calibration", self._calibrated)
        return self._cache.arrays, self._covered() if self._cache.arrays else 0

    @property
    def _calibrated(self) -> str:
        return f"{self.collection}@{self._tenant}" if self._tenant else self.collection

    def _covered(self) -> int:
        return self._count("is_copy == false and is_measured == true")

    def keep_calibration(self, values: Mapping[str, npt.NDArray[Any]], columns: Columns, start: int) -> None:
        """See `Store.keep_calibration`. Servers before 2.6 change no column without the vector, so rows are written
        again, whole: a thousand at once, and only those in which something is new.
        """
        is_rest = 0 < start == self._covered()
        segments = self._in_order(start)[: len(columns.hubness)]
        order = np.argsort(segments)
        segments, hubness, is_text = segments[order], columns.hubness[order], columns.is_text[order]
        numbers = ("segment", "hubness", "is_text", "is_measured")
        for page in self._entities("is_measured == false" if is_rest else "", numbers, LIMIT):
            places = np.searchsorted(segments, [one["segment"] for one in page]).tolist()
            changed = {
                one["id"]: {"hubness": float(hubness[place]), "is_text": bool(is_text[place]), "is_measured": True}
                for one, place in zip(page, places, strict=True)
                if place < len(segments) and segments[place] == one["segment"]
                and not _is_measured(one, hubness[place], is_text[place])
            }  # fmt: skip
            ids = [*changed]
            for first in range(0, len(ids), WRITTEN):
                named = f"id in {json.dumps(ids[first : first + WRITTEN])}"
                rows = self._server.query(self.collection, named, ["*"])
                self._server.upsert(self.collection, [{**one, **changed[one["id"]]} for one in rows])
        self._notes.keep_arrays("calibration", self._calibrated, values)
        self._cache.clear()  # in place, as in `_changed`
        self._cache.arrays = dict(values)

    # Changes

    def upsert(self, documents: Sequence[NewDocument], vectors: FloatArray) -> None:
        """See `Store.upsert`: ids are stable, so repeating it changes nothing. Where the process or the server dies, a
        document is there whole or as it was before, and the same call mends what is half done.
        """
        total = sum(len(one.segments) for one in documents)
        if vectors.shape != (total, self.spec.dim):
            raise VectorError(f"expected vectors of shape ({total}, {self.spec.dim}), got {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise VectorError("vectors hold NaN or infinite values")
        if not documents:
            return
        _Writing(self._server, self._space, self._tenant, self._mine).write(documents, made.unit_half(vectors))
        self._changed()

    def delete(self, where: Where | None) -> int:
        """See `Store.delete`."""
        condition = self._condition(where)
        expression = joined(["ordinal == 0", condition.expression])
        documents = [row.document for row in self._rows(expression, condition.check)]
        return self.drop(documents)

    def drop(self, documents: Sequence[int]) -> int:
        """See `Store.drop`."""
        wanted = list(dict.fromkeys(map(int, documents)))
        if not wanted:
            return 0
        gone = _Writing(self._server, self._space, self._tenant, self._mine).drop(wanted)
        self._changed()
        return gone

    # Files

    def files(self, root: str, below: str = "") -> Iterator[StoredFile]:
        """See `Store.files`."""
        named = made.nfc(below)
        within = f"(name == {quoted(named)} or {beginning_with('name', named + '/')})" if below else ""
        for page in self._entities(joined(["ordinal == 0", f"root == {quoted(root)}", within]), READ):
            for row in map(row_of, page):
                known = row.described
                yield StoredFile(
                    row.document, known["path"], known["size"], known["mtime_ns"], bytes.fromhex(known["hash"]),
                    known.get("decoding", ""), known.get("sidecars", ""),
                )  # fmt: skip

    def contents(self, keys: Sequence[tuple[bytes, str]]) -> dict[tuple[bytes, str], StoredContent]:
        """See `Store.contents`."""
        firsts = {segment_id(self._tenant, *key, 0): key for key in keys}
        holders: dict[tuple[bytes, str], int] = {}
        for page in self._rows_of("segment", firsts, _Condition(ALWAYS, None)):
            for one in page:
                holders.setdefault(firsts[one["segment"]], one["document"])
        exported = {
            document_id(self._tenant, one.root, one.path): (one, vectors)
            for part in self._exported(list(dict.fromkeys(holders.values())))
            for one, vectors in _parted(part)
        } if holders else {}  # fmt: skip
        return {
            key: StoredContent(one.modality, one.own or one.info, one.segments, vectors)
            for key, id_ in holders.items() if id_ in exported for one, vectors in [exported[id_]]
        }  # fmt: skip

    def remembered(self, kind: str, root: str = "") -> dict[str, list[Any]]:
        """See `Store.remembered`."""
        beginning = self._memory(kind, root)
        return {key.removeprefix(beginning): json.loads(value) for key, value in self._notes.below(beginning).items()}

    def remember(self, kind: str, root: str, values: Mapping[str, list[Any] | None]) -> None:
        """See `Store.remember`."""
        beginning = self._memory(kind, root)
        kept = {f"{beginning}{path}": json.dumps(value) for path, value in values.items() if value is not None}
        if kept:
            self._notes.write(kept)
        self._notes.forget(f"{beginning}{path}" for path, value in values.items() if value is None)

    def _memory(self, kind: str, root: str) -> str:
        own = f"{self._tenant}/{self.collection}" if kind != "folder" else self._tenant
        return f"{kind}/{own}\n{root}\n" if root else f"{kind}/{own}\n"

    def beside(self, spec: EncoderSpec, name: str) -> MilvusStore:
        """See `Store.beside`."""
        space = make_space(self._server, self._notes, name, spec)
        self._server.load(space.collection)
        return MilvusStore(self._shared, space, follows=False)

    def damaged(self) -> Iterator[tuple[str, str]]:
        """See `Store.damaged`."""
        there: dict[int, int] = {}
        counts: dict[int, tuple[int, int]] = {}
        for page in self._entities(ALWAYS, ["document", "ordinal", "count"], LIMIT):
            for one in page:
                there[one["document"]] = there.get(one["document"], 0) + 1
                if one["ordinal"] == 0:
                    counts[one["document"]] = (one["count"], one["id"])
        wrong = [id_ for id_, found in there.items() if id_ not in counts or counts[id_][0] != found]
        for page in self._rows_of("document", wrong, _Condition(ALWAYS, None)):
            for row in map(row_of, page):
                if row.document in there:
                    found = there.pop(row.document)
                    yield row.place, f"{found} of {row.count} segments are there: index or import it again"

    def switch(self, spec: EncoderSpec, name: str, *, partly: bool = False) -> None:
        """See `Store.switch`: the alias is set in one step; who asks meanwhile gets the hits of one or the other."""
        if self._tenant:
            raise UsageError(f"{self.place} is shared with other tenants: switch the store without tenant=…")
        other = collection_of(self.address.name, spec)
        known = _read_space(self._notes, other)
        documents = 0 if known is None else self._server.count(other, self._mine("ordinal == 0"))
        if known is None or (documents < self.count() and not partly):
            raise UsageError(
                f"{self.place} has vectors of {spec.describe()} for {documents} of {self.count()} documents: fill them "
                "in with `mmsearch switch`"
            )
        _write_space(self._notes, known._replace(name=name, spec=spec))
        self._server.point(self.address.name, other)
        self._notes.write({"answering": uuid.uuid4().hex})
        self._shared.answering = other
        self._space = known._replace(name=name, spec=spec)
        self._token = self._read_token()
        self._lasts()


class _Known:
    """Rows that were read while a version lasts: of segments, by the filter under which all of theirs are known; and of
    documents of one segment.
    """

    def __init__(self) -> None:
        self._rows: dict[Where | None, dict[int, list[Row]]] = {}
        self._documents: dict[int, Row] = {}
        self._numbers: dict[int, tuple[float, bool]] = {}

    def keep(self, where: Where | None, holders: Mapping[int, list[Row]]) -> None:
        """All rows of some segments that satisfy a filter."""
        if len(self._numbers) > REMEMBERED:
            self._rows, self._documents, self._numbers = {}, {}, {}
        if len(self._rows) > 16:
            self._rows = {}
        self._rows.setdefault(where, {}).update(holders)
        for rows in holders.values():
            self.keep_documents(rows)

    def keep_documents(self, rows: Iterable[Row]) -> None:
        """Some rows."""
        for row in rows:
            self._numbers[row.segment] = (row.hubness, row.is_text)
            if row.count == 1:
                self._documents[row.document] = row

    def of(self, where: Where | None, ids: Sequence[int]) -> dict[int, list[Row]]:
        """The rows of those of some segments of which all are known."""
        known = self._rows.get(where, {})
        return {id_: known[id_] for id_ in ids if id_ in known}

    def documents(self, ids: Sequence[int]) -> dict[int, list[Row]]:
        """The rows of those of some documents of which all are known."""
        known = self._documents
        return {id_: [known[id_]] for id_ in ids if id_ in known}

    def columns(self, ids: Sequence[int]) -> dict[int, tuple[float, bool]]:
        """What calibration has measured, of those of some segments that were read."""
        numbers = self._numbers
        return {id_: numbers[id_] for id_ in ids if id_ in numbers}


class _Cache:
    """What has been read while a version lasts."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets it."""
        self.counts: dict[str, int] = {}
        self.kinds: frozenset[Modality] | None = None
        self.arrays: dict[str, npt.NDArray[Any]] | None = None
        self.known = _Known()


class _Writing:
    """One change of a collection."""

    def __init__(self, server: Server, space: _Space, tenant: str, mine: Callable[[str], str]) -> None:
        self._server, self._space, self._tenant, self._mine = server, space, tenant, mine

    def write(self, documents: Sequence[NewDocument], vectors: FloatArray) -> None:
        """Writes documents, in place of those at the same paths."""
        ends = np.cumsum([len(one.segments) for one in documents]).tolist()
        pairs = {
            document_id(self._tenant, one.root, one.path): (one, vectors[end - len(one.segments) : end])
            for one, end in zip(documents, ends, strict=True)
        }
        contents = {self._content(one, 0) for one, _ in pairs.values()}
        there = self._there("id", pairs)
        holders: dict[int, list[Entity]] = {}
        for one in self._read("segment", contents, _PLACES):
            holders.setdefault(one["segment"], []).append(one)
        stored = self._stored_vectors(holders)
        rows: list[dict[str, Any]] = []
        given_up: list[int] = []
        written: dict[int, list[dict[str, Any]]] = {}
        arrival = max(time.time_ns(), _last_arrival.get(self._space.collection, 0) + 1)
        _last_arrival[self._space.collection] = arrival + len(vectors)
        for id_, (document, own) in pairs.items():
            content = self._content(document, 0)
            before = there.get(id_)
            is_same = before is not None and before["segment"] == content
            if before is not None and not is_same:
                given_up.append(id_)
            new = made.rows_of(
                document, own, self._tenant, has_infix=self._space.has_infix,
                arrivals=range(arrival, arrival + len(own)),
            )  # fmt: skip
            arrival += len(own)
            others = [one for one in holders.get(content, ()) if one["document"] not in pairs or one["document"] == id_]
            first = written.setdefault(content, new)
            for ordinal, row in enumerate(new):
                known = stored.get(row["segment"])
                if known is not None:
                    row |= known
                elif first is not new:
                    row |= {name: first[ordinal][name] for name in _SHARED}
                if is_same and before is not None:
                    row["arrival"] = before["arrival"] + ordinal  # it has come already
                row["is_copy"] = first is not new or any(
                    not one["is_copy"] and one["document"] != id_ for one in others
                )
            rows += new
        self._delete_rows(
            row_id(id_, ordinal)
            for id_, before in there.items() for ordinal in range(len(pairs[id_][0].segments), before["count"])
        )  # fmt: skip
        lost = self._segments_given_up(given_up) if given_up else []
        # The first row of a document is what makes it one: it comes last.
        for part in ([row for row in rows if row["ordinal"]], [row for row in rows if not row["ordinal"]]):
            for start in range(0, len(part), WRITTEN):
                self._server.upsert(self._space.collection, part[start : start + WRITTEN])
        self._promote(lost)

    def drop(self, documents: Sequence[int]) -> int:
        """Deletes documents; returns how many there were."""
        there = self._there("id", documents)
        lost = self._segments_given_up(list(there))
        for start in range(0, len(documents), IDS):
            named = f"document in {json.dumps(documents[start : start + IDS])}"
            self._server.delete(self._space.collection, self._mine(named))
        self._promote(lost)
        return len(there)

    def _content(self, document: NewDocument, ordinal: int) -> int:
        return segment_id(self._tenant, document.hash, document.decoding, ordinal)

    def _read(self, field: str, ids: Iterable[int], columns: Sequence[str]) -> Iterator[Entity]:
        wanted = list(ids)
        for start in range(0, len(wanted), IDS):
            named = f"{field} in {json.dumps(wanted[start : start + IDS])}"
            for page in self._server.pages(self._space.collection, self._mine(named), columns):
                yield from page

    def _there(self, field: str, ids: Iterable[int]) -> dict[int, Entity]:
        return {one["id"]: one for one in self._read(field, ids, _PLACES)}

    def _stored_vectors(self, holders: Mapping[int, list[Entity]]) -> dict[int, dict[str, Any]]:
        """What is known of the segments of contents that are there: their vectors, and what was measured of them."""
        documents = {own[0]["document"] for own in holders.values()}
        found = {}
        for one in self._read("document", documents, ("segment", "vector", *_SHARED)):
            found[one["segment"]] = {name: one[name] for name in _SHARED}
        return found

    def _segments_given_up(self, documents: Sequence[int]) -> list[int]:
        """Segments of documents, of which there may be copies elsewhere that must stand for them."""
        if not self._server.count(self._space.collection, self._mine("is_copy == true")):
            return []
        read = self._read("document", documents, ("segment", "is_copy"))
        return [one["segment"] for one in read if not one["is_copy"]]

    def _promote(self, segments: Sequence[int]) -> None:
        """Of segments that have only copies left, one of these is none any more."""
        best: dict[int, Entity] = {}
        whole = set()
        for one in self._read("segment", segments, ("segment", "is_copy", "id")):
            if one["is_copy"]:
                best.setdefault(one["segment"], one)
            else:
                whole.add(one["segment"])
        ids = [one["id"] for segment, one in best.items() if segment not in whole]
        changed = [{**one, "is_copy": False} for one in self._read("id", ids, ("*",))]
        for start in range(0, len(changed), WRITTEN):
            self._server.upsert(self._space.collection, changed[start : start + WRITTEN])

    def _delete_rows(self, ids: Iterable[int]) -> None:
        wanted = list(ids)
        for start in range(0, len(wanted), IDS):
            self._server.delete(self._space.collection, f"id in {json.dumps(wanted[start : start + IDS])}")


_PLACES = ("document", "segment", "count", "is_copy", "arrival")
_SHARED = ("vector", "hubness", "is_text", "is_measured")
"""What rows of one segment have in common."""
_last_arrival: dict[str, int] = {}


def _is_measured(row: Entity, hubness: np.float32, is_text: np.bool_) -> bool:
    """Whether a row says that already."""
    same = abs(row["hubness"] - float(hubness)) <= UNFELT and row["is_text"] == bool(is_text)
    return bool(row["is_measured"] and same)


def _kept(near: Nearest, adjust: Adjust) -> Nearest:
    keep = np.isfinite(adjust(near.ids, near.scores))
    return replace(near, ids=near.ids[keep], scores=near.scores[keep])


def _vectors_of(entities: Sequence[Entity]) -> FloatArray:
    return np.array([one["vector"] for one in entities], dtype=np.float32)


def _parted(part: Exported) -> Iterator[tuple[NewDocument, FloatArray]]:
    start = 0
    for one in part.documents:
        yield one, part.vectors[start : start + len(one.segments)]
        start += len(one.segments)


def _has_part(row: Row, part: str) -> bool:
    return part in " ".join(tokens_of(name_of(row)))


def _having_any(rows: Iterable[Row], forms: Sequence[list[str]]) -> set[int]:
    found: set[int] = set()
    for row in rows:
        if row.document not in found:
            texts = [tokens_of(text) for text in texts_of(row)]
            if any(has_tokens(text, form) for text in texts for form in forms):
                found.add(row.document)
    return found


def _date_of(row: Row) -> str | None:
    return row.described.get("taken_at") or changed_at(row.described["mtime_ns"])


def _described(row: Row) -> DocumentInfo:
    known, info = row.described, document_of([row]).info
    return DocumentInfo(
        row.document, row.place, known["modality"], known["size"], known["mtime_ns"], _date_of(row), info
    )  # fmt: skip


def _document(row: Row) -> Document:
    known = row.described
    return Document(
        row.document, row.place, known["path"], known["modality"], known["size"], known["mtime_ns"],
        known.get("caption"), known.get("description"),
    )  # fmt: skip


# Collections


def collection_of(name: str, spec: EncoderSpec) -> str:
    """The collection of an encoder's vectors: named after what makes vectors comparable."""
    key = blake2b(f"{spec.digest} {spec.preprocessing} {spec.dim}".encode(), digest_size=6).hexdigest()
    return f"{name}_{key}"


def _answering(server: Server, notes: Notes) -> _Space:
    name = server.address.name
    collection = server.behind(name)
    if collection is None:
        raise IndexMissing(
            f"there is no index at {server.address.text}: make one with `mmsearch index FOLDER --store …`"
        )
    space = _read_space(notes, collection)
    if space is None:
        raise IndexDamaged(
            f"{server.address.text} does not say which encoder made the vectors of {collection}: it was not made by "
            "mmsearch, or its notes are gone; import it again from an export"
        )
    return space


def _read_space(notes: Notes, collection: str) -> _Space | None:
    text = notes.read([f"space:{collection}"], strong=True).get(f"space:{collection}")
    if text is None:
        return None
    known = json.loads(text)
    if known["schema"] > SCHEMA:
        raise IndexTooNew(
            f"{collection} is of schema {known['schema']}, this mmsearch reads up to {SCHEMA}: upgrade it"
        )
    own = {field.name for field in fields(EncoderSpec)}
    spec = EncoderSpec(**{name: value for name, value in known["encoder"].items() if name in own})
    return _Space(collection, spec, known["model"], known["has_infix"])


def _write_space(notes: Notes, space: _Space) -> None:
    known = {
        "schema": SCHEMA, "encoder": asdict(space.spec), "model": space.name, "has_infix": space.has_infix,
    }  # fmt: skip
    notes.write({f"space:{space.collection}": json.dumps(known)})


@lru_cache(maxsize=64)
def _index_of(server: Server, collection: str) -> str:
    return server.index_of(collection)


def make_space(server: Server, notes: Notes, name: str, spec: EncoderSpec) -> _Space:
    """The collection of an encoder, made where there is none."""
    from pymilvus import DataType

    notes.create()
    collection = collection_of(server.address.name, spec)
    known = _read_space(notes, collection)
    if known is not None and server.has(collection):
        server.load(collection)
        return known
    server.drop(collection)  # half made
    schema = server.schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    for field in ("document", "segment", "ordinal", "count", "arrival", "mtime_ns"):
        schema.add_field(field, DataType.INT64)
    for field in ("is_copy", "is_measured", "is_text"):
        schema.add_field(field, DataType.BOOL)
    schema.add_field("hubness", DataType.FLOAT)
    for field in made.NUMBERS:
        schema.add_field(field, DataType.DOUBLE)
    lengths = {
        "modality": 64, "kind": 64, "root": 8192, "name": 8192, "place": 16_384, "hash": 256, "taken_at": 64,
        "letters": 8192, "described": made.LONGEST, **dict.fromkeys(made.FOLDED, 4096),
    }  # fmt: skip
    for field, length in lengths.items():
        schema.add_field(field, DataType.VARCHAR, max_length=length)
    tenants = {"is_partition_key": True} if server.address.tenant else {}
    schema.add_field("tenant", DataType.VARCHAR, max_length=256, **tenants)
    tokens = {"element_type": DataType.VARCHAR, "max_capacity": made.MOST_TOKENS, "max_length": 512}
    schema.add_field("tokens", DataType.ARRAY, **tokens)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=spec.dim)
    server.create(collection, schema, server.address.index or ("flat" if server.is_lite else "hnsw"))
    space = _Space(collection, spec, name, _has_infix(server, collection))
    _write_space(notes, space)
    return space


def _has_infix(server: Server, collection: str) -> bool:
    """Whether the server can look inside of texts, which 2.3 cannot."""
    try:
        server.query(collection, 'letters like "%a%"', ["id"], 1)
    except StoreUnreachable:
        return False
    return True


class MilvusFamily(StoreFamily):
    """Addresses of Milvus; see `mmsearch.store.milvus.address`."""

    takes_folders = True

    def exists(self, address: str) -> bool:
        """See `StoreFamily.exists`."""
        parsed = parse(address)
        if parsed.is_file and not parsed.path.exists():
            return False
        server = Server(parsed)
        try:
            return server.behind(parsed.name) is not None
        finally:
            server.close()

    def open(self, address: str) -> MilvusStore:
        """See `StoreFamily.open`."""
        parsed = parse(address)
        if parsed.is_file and not parsed.path.exists():
            raise IndexMissing(
                f"there is no index at {address}: make one with `mmsearch index FOLDER --store {address}`"
            )
        server = Server(parsed)
        try:
            return self._opened(server)
        except BaseException:
            server.close()
            raise

    def _opened(self, server: Server) -> MilvusStore:
        notes = Notes(server, f"{server.address.name}_notes")
        if server.behind(server.address.name) is not None:
            notes.load()
        space = _answering(server, notes)
        server.load(space.collection)
        shared = _Shared(server, notes)
        shared.answering = space.collection
        return MilvusStore(shared, space)

    def create(self, address: str, name: str, spec: EncoderSpec) -> MilvusStore:
        """See `StoreFamily.create`."""
        server = Server(parse(address))
        try:
            if server.behind(server.address.name) is not None:
                raise UsageError(f"there is an index at {address} already")
            notes = Notes(server, f"{server.address.name}_notes")
            space = make_space(server, notes, name, spec)
            server.point(server.address.name, space.collection)
            return self._opened(server)
        except BaseException:
            server.close()
            raise

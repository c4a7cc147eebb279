"""A store of plain Python lists: the oracle of the contract, and proof that `mmsearch.query` needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from mmsearch.core.errors import UsageError, VectorError
from mmsearch.core.letters import has_tokens, part_of_name, tokens_of
from mmsearch.core.modalities import group_of
from mmsearch.core.types import DocumentInfo, EncoderSpec, Modality
from mmsearch.filters import Where, holds
from mmsearch.filters.tree import value_of
from mmsearch.store import base
from mmsearch.store.base import Block, Columns, Document, Exported, Holders, Look, Nearest, NewDocument, Segment, Store


@dataclass
class Stored:
    """A segment."""

    id: int
    hash: bytes
    ordinal: int
    vector: base.FloatArray


class MemoryStore(Store):
    """Everything is looked at every time. Ids are scattered, so that nobody takes them for places."""

    place, recipe = "memory", "exact"

    def __init__(self, spec: EncoderSpec) -> None:
        self.encoder = spec
        self.changes = self.used = 0
        self.documents: dict[int, NewDocument] = {}
        self.stored: list[Stored] = []
        self.kept: tuple[Mapping[str, Any], list[Columns]] = ({}, [])

    spec = property(lambda self: self.encoder)  # type: ignore[assignment]
    version = property(lambda self: self.changes)  # type: ignore[assignment]
    size = property(lambda self: len(self.stored))  # type: ignore[assignment]
    modalities = property(  # type: ignore[assignment]
        lambda self: frozenset(kind for one in self.documents.values() for kind in self.kinds(one))
    )

    @property
    def metadata(self) -> dict[str, Any]:
        hashes = {one.hash for one in self.documents.values()}
        alive = sum(one.hash in hashes for one in self.stored)
        return {"name": self.spec.name, "recipe": "exact", "documents": self.count(), "segments": alive}

    def refresh(self) -> None: ...

    def search(
        self, vectors: base.FloatArray, k: int, where: Where | None = None, *, kind: base.QueryKind = "text",
        pool: int = 0, adjust: base.Adjust | None = None,
    ) -> list[Nearest]:  # fmt: skip
        hashes = {one.hash for id_, one in self.documents.items() if self.satisfies(id_, where)}
        alive = [one for one in self.stored if one.hash in hashes]
        results = []
        for vector in vectors:
            scored = sorted((-float(one.vector @ vector), one.id) for one in alive)[: max(k, pool)]
            ids, scores = np.array([id_ for _, id_ in scored], np.int64), -np.array([s for s, _ in scored], np.float32)
            keep = np.isfinite(adjust(ids, scores)) if where is not None and adjust is not None else slice(None)
            results.append(Nearest(ids[keep], scores[keep], len(scored) == len(alive)))
        return results

    def fetch(self, ids: Sequence[int], where: Where | None = None) -> list[Segment]:
        return [
            self.segment(one, id_)
            for one in self.stored if one.id in {*ids}
            for id_ in self.documents if self.documents[id_].hash == one.hash and self.satisfies(id_, where)
        ]  # fmt: skip

    def segment(self, one: Stored, document: int, date: str | None = None) -> Segment:
        owner = self.documents[document]
        new = owner.segments[one.ordinal]
        return Segment(
            one.id, document, owner.place, self.kinds(owner)[one.ordinal], one.ordinal, new.start_s, new.end_s,
            new.text, date,
        )  # fmt: skip

    def kinds(self, document: NewDocument) -> list[Modality]:
        """Of its segments."""
        return [one.kind or document.modality for one in document.segments]

    def satisfies(self, id_: int, where: Where | None) -> bool:
        one = self.documents[id_]
        texts: dict[str, Any] = {"words": self.texts(id_), "name": self.name(id_)}
        if self.name(id_):
            texts["absolute"] = f"{one.root}/{one.path}".lstrip("/")
            texts["named"] = f"{one.root.rsplit('/', 1)[-1]}/{one.path}"
        return where is None or holds(where, asdict(one) | asdict(one.info) | texts)

    def texts(self, id_: int) -> list[str]:
        return [*self.written(id_).values(), *(segment.text or "" for segment in self.documents[id_].segments)]

    def name(self, id_: int) -> str:
        one = self.documents[id_]
        return "" if one.root.startswith("dataset:") else one.path

    def vectors(self, ids: base.IdArray) -> base.FloatArray:
        by_id = {one.id: one.vector for one in self.stored}
        return np.stack([by_id[id_] for id_ in ids.tolist()]) if len(ids) else np.zeros((0, self.spec.dim), np.float32)

    def sample(self, n: int, modalities: Sequence[Modality], seed: int = 0) -> base.IdArray:
        _, ids = self.segments(list(self.documents), modalities)
        ids = np.unique(ids)
        return ids if len(ids) <= n else np.sort(np.random.default_rng(seed).choice(ids, n, replace=False))

    def blocks(self, start: int = 0) -> Iterator[Block]:
        kinds = {one.hash: self.kinds(one) for one in self.documents.values()}
        for one in self.stored[start:]:
            is_text = one.hash in kinds and group_of(kinds[one.hash][one.ordinal]) == "text"
            yield Block(np.array([one.id]), one.vector[None], np.array([is_text]), np.array([one.hash not in kinds]))

    def segments(
        self, documents: Sequence[int], modalities: Sequence[Modality] | None = None
    ) -> tuple[base.IdArray, base.IdArray]:
        pairs = [
            (id_, one.id) for id_ in documents if (owner := self.documents.get(id_)) is not None
            for one in self.stored if one.hash == owner.hash
            and (modalities is None or self.kinds(owner)[one.ordinal] in modalities)
        ]  # fmt: skip
        documents, ids = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return documents, ids

    def matching(self, documents: Sequence[int], where: Where) -> set[int]:
        return {id_ for id_ in documents if id_ in self.documents and self.satisfies(id_, where)}

    def count(self, where: Where | None = None) -> int:
        return sum(self.satisfies(id_, where) for id_ in self.documents)

    def newest(self, where: Where | None, limit: int, offset: int = 0) -> list[Segment]:
        dated = []
        for id_ in filter(lambda id_: self.satisfies(id_, where), sorted(self.documents)):
            one = self.documents[id_]
            changed = datetime.fromtimestamp(one.mtime_ns // 10**9).strftime("%Y-%m-%dT%H:%M:%S")
            first = next(stored for stored in self.stored if stored.hash == one.hash and stored.ordinal == 0)
            dated.append(self.segment(first, id_, one.info.taken_at or changed))
        return sorted(dated, key=lambda one: one.date or "", reverse=True)[offset : offset + limit]

    def described(self, id_: int) -> DocumentInfo:
        one = self.documents[id_]
        changed = datetime.fromtimestamp(one.mtime_ns // 10**9).strftime("%Y-%m-%dT%H:%M:%S") if one.mtime_ns else None
        date = one.info.taken_at or changed
        return DocumentInfo(id_, one.place, one.modality, one.size, one.mtime_ns, date, one.info)

    def describe(self, documents: Sequence[int]) -> dict[int, DocumentInfo]:
        return {id_: self.described(id_) for id_ in documents if id_ in self.documents}

    def listed(self, where: Where | None, order: base.Order, limit: int, offset: int = 0) -> list[DocumentInfo]:
        every = [self.described(id_) for id_ in sorted(self.documents) if self.satisfies(id_, where)]
        if order == "path":
            every.sort(key=lambda one: one.path)
        else:
            every.sort(key=lambda one: one.date or "", reverse=True)
        return every[offset : offset + limit]

    def months(self, where: Where | None = None) -> list[tuple[str | None, int]]:
        dates = [one.date for one in self.listed(where, "path", 10**9)]
        counts = Counter(None if date is None else date[:7] for date in dates)
        return sorted(counts.items(), key=lambda pair: pair[0] or "", reverse=True)

    def folders(self, where: Where | None = None) -> list[tuple[str, int]]:
        return sorted(Counter(one.path.rpartition("/")[0] for one in self.listed(where, "path", 10**9)).items())

    def document(self, id_: int) -> Document:
        one = self.documents[id_]
        more = (one.size, one.mtime_ns, one.caption, one.info.description)
        return Document(id_, one.place, one.path, one.modality, *more)

    def find(self, path: str) -> Document | None:
        return next((one for one in map(self.document, self.documents) if one.path == path), None)

    def scan(self, prefix: str = "") -> Iterator[Document]:
        everything, below = map(self.document, sorted(self.documents)), prefix.rstrip("/") + "/"
        return (one for one in everything if not prefix or (one.path + "/").startswith(below))

    def export(self, where: Where | None = None) -> Iterator[Exported]:
        for id_, one in list(self.documents.items()):
            if self.satisfies(id_, where):
                parts = [each for each in self.stored if each.hash == one.hash]
                ids, vectors = np.array([each.id for each in parts]), np.stack([each.vector for each in parts])
                yield Exported([one], ids, vectors)

    def looks(self, documents: Sequence[int]) -> dict[int, Look]:
        return {id_: Look(i.width, i.height, i.taken_at) for id_ in documents for i in [self.documents[id_].info]}

    def words(self, terms: Sequence[Sequence[str]], limit: int) -> list[Holders]:
        tokens = {id_: [tokens_of(text) for text in self.texts(id_)] for id_ in sorted(self.documents)}
        found = []
        for forms in terms:
            wanted = [tokens_of(form) for form in forms]
            held = [id_ for id_ in tokens if any(has_tokens(text, form) for text in tokens[id_] for form in wanted)]
            if not held and (part := part_of_name(forms[0])) is not None:
                held = [id_ for id_ in tokens if part in " ".join(tokens_of(self.name(id_)))]
            found.append(Holders(held, (), len(held)) if len(held) <= limit else Holders((), (), limit + 1))
        return found

    def written(self, document: int) -> dict[str, str]:
        one = self.documents[document]
        texts = {"path": one.path, "folder": one.root.removeprefix("dataset:").rsplit("/", 1)[-1]}
        return texts | {"caption": one.caption or "", "description": one.info.description or ""}

    def columns(self, ids: base.IdArray) -> Columns:
        kept = dict(zip((one.id for one in self.stored), self.kept[1], strict=False))
        rows = np.array([kept.get(id_, (0, 0)) for id_ in ids.tolist()], np.float32).reshape(-1, 2)
        return Columns(rows[:, 0], rows[:, 1].astype(bool))

    def calibration(self) -> tuple[Mapping[str, Any], int]:
        return self.kept[0], len(self.kept[1])

    def keep_calibration(self, values: Mapping[str, Any], columns: Columns, start: int) -> None:
        self.kept = (dict(values), [*self.kept[1][:start], *(Columns(*one) for one in zip(*columns, strict=True))])

    def fields(self, field: str) -> list[Any]:
        if field == "date":
            return [one.date for one in self.newest(None, 10**9)]
        every = [asdict(one) | asdict(one.info) for one in self.documents.values()]
        known = [one | dict(zip(("folder", "name"), one["path"].rpartition("/")[::2], strict=True)) for one in every]
        return [value for one in known if (value := value_of(one, field)) is not None]

    def values(self, field: str, limit: int) -> list[tuple[str, int]]:
        return sorted(Counter(self.fields(field)).items(), key=lambda pair: (-pair[1], pair[0]))[:limit]

    def span(self, field: str) -> tuple[Any, Any] | None:
        known = self.fields(field)
        return (min(known), max(known)) if known else None

    def upsert(self, documents: Sequence[NewDocument], vectors: base.FloatArray) -> None:
        if vectors.shape != (sum(len(one.segments) for one in documents), self.spec.dim):
            raise VectorError(f"vectors of shape {vectors.shape} do not fit")
        if not np.isfinite(vectors).all():
            raise VectorError("vectors hold NaN or infinite values")
        rows = iter(vectors.astype(np.float16).astype(np.float32))
        for document in documents:
            mine, known = [next(rows) for _ in document.segments], {one.hash for one in self.stored}
            for ordinal, vector in enumerate(mine if document.hash not in known else []):
                self.stored.append(Stored(1000 + 37 * len(self.stored), document.hash, ordinal, vector))
            place = (document.root, document.path)
            same = (id_ for id_, one in self.documents.items() if (one.root, one.path) == place)
            self.used += 1
            self.documents[next(same, 5 + 3 * self.used)] = document
        self.changes += 1

    def delete(self, where: Where | None) -> int:
        before, self.changes = len(self.documents), self.changes + 1
        self.documents = {id_: one for id_, one in self.documents.items() if not self.satisfies(id_, where)}
        hashes = {one.hash for one in self.documents.values()}
        for one in self.stored:
            one.hash = one.hash if one.hash in hashes else b"gone"
        return before - len(self.documents)

    def switch(self, spec: EncoderSpec, name: str, *, partly: bool = False) -> None:
        if spec != self.spec:
            raise UsageError("there are no vectors of another encoder")

"""A store of plain Python lists: the oracle of the contract, and proof that `mmsearch.query` needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from mmsearch.core.errors import UsageError, VectorError
from mmsearch.core.letters import has_tokens, part_of_name, tokens_of
from mmsearch.core.types import EncoderSpec, Modality
from mmsearch.filters import Where, holds
from mmsearch.models.rerankers.base import RerankerSpec
from mmsearch.store import base
from mmsearch.store.base import Block, Columns, Document, Holders, Look, Nearest, NewDocument, Segment, Store


@dataclass
class Stored:
    """A segment: its id, the hash of its source, its number in there and its vector."""

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

    @property
    def modalities(self) -> frozenset[Modality]:
        return frozenset(one.modality for one in self.documents.values())

    @property
    def metadata(self) -> dict[str, Any]:
        hashes = {one.hash for one in self.documents.values()}
        alive = sum(one.hash in hashes for one in self.stored)
        return {"name": self.spec.name, "recipe": "exact", "documents": self.count(), "segments": alive}

    def refresh(self) -> None:
        pass

    def is_stale(self) -> bool:
        return False

    # Reading

    def search(
        self, vectors: base.FloatArray, k: int, where: Where | None = None, *, kind: base.QueryKind = "text",
        pool: int = 0, adjust: base.Adjust | None = None,
    ) -> list[Nearest]:  # fmt: skip
        hashes = {one.hash for id_, one in self.documents.items() if self.satisfies(id_, where)}
        alive = [one for one in self.stored if one.hash in hashes]
        found = []
        for vector in vectors:
            scored = sorted((-float(one.vector @ vector), one.id) for one in alive)[: max(k, pool)]
            ids, scores = np.array([id_ for _, id_ in scored], np.int64), -np.array([s for s, _ in scored], np.float32)
            if where is not None and adjust is not None:
                keep = adjust(ids, scores) > -np.inf
                ids, scores = ids[keep], scores[keep]
            found.append(Nearest(ids, scores, len(scored) == len(alive)))
        return found

    def fetch(self, ids: Sequence[int], where: Where | None = None) -> list[Segment]:
        wanted = set(ids)
        return [
            self.segment(one, id_)
            for one in self.stored if one.id in wanted
            for id_ in self.documents if self.documents[id_].hash == one.hash and self.satisfies(id_, where)
        ]  # fmt: skip

    def segment(self, one: Stored, document: int, date: str | None = None) -> Segment:
        owner = self.documents[document]
        new = owner.segments[one.ordinal]
        times = (new.start_s, new.end_s, new.text)
        return Segment(one.id, document, self.path(owner), owner.modality, one.ordinal, *times, date)

    def path(self, document: NewDocument) -> str:
        return document.path if document.root.startswith("dataset:") else f"{document.root}/{document.path}"

    def satisfies(self, id_: int, where: Where | None) -> bool:
        one = self.documents[id_]
        texts = [*self.written(id_).values(), *(segment.text or "" for segment in one.segments)]
        return where is None or holds(where, asdict(one) | asdict(one.info) | {"words": texts, "name": self.name(one)})

    def name(self, document: NewDocument) -> str:
        return "" if document.root.startswith("dataset:") else document.path

    def vectors(self, ids: base.IdArray) -> base.FloatArray:
        by_id = {one.id: one.vector for one in self.stored}
        return np.stack([by_id[id_] for id_ in ids.tolist()]) if len(ids) else np.zeros((0, self.spec.dim), np.float32)

    def sample(self, n: int, modalities: Sequence[Modality], seed: int = 0) -> base.IdArray:
        _, ids = self.segments(list(self.documents), modalities)
        ids = np.unique(ids)
        return ids if len(ids) <= n else np.sort(np.random.default_rng(seed).choice(ids, n, replace=False))

    def blocks(self, start: int = 0) -> Iterator[Block]:
        kinds = {one.hash: one.modality for one in self.documents.values()}
        for one in self.stored[start:]:
            is_text, is_dead = np.array([kinds.get(one.hash) == "text"]), np.array([one.hash not in kinds])
            yield Block(np.array([one.id]), one.vector[None], is_text, is_dead)

    def segments(
        self, documents: Sequence[int], modalities: Sequence[Modality] | None = None
    ) -> tuple[base.IdArray, base.IdArray]:
        pairs = [
            (id_, one.id) for id_ in documents if (owner := self.documents.get(id_)) is not None
            and (modalities is None or owner.modality in modalities) for one in self.stored if one.hash == owner.hash
        ]  # fmt: skip
        array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return array[:, 0], array[:, 1]

    def matching(self, documents: Sequence[int], where: Where) -> set[int]:
        return {id_ for id_ in documents if id_ in self.documents and self.satisfies(id_, where)}

    def count(self, where: Where | None = None) -> int:
        return sum(self.satisfies(id_, where) for id_ in self.documents)

    def newest(self, where: Where | None, limit: int, offset: int = 0) -> list[Segment]:
        dated = []
        for id_, one in self.documents.items():
            changed = datetime.fromtimestamp(one.mtime_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            first = next(stored for stored in self.stored if stored.hash == one.hash and stored.ordinal == 0)
            if self.satisfies(id_, where):
                dated.append(self.segment(first, id_, one.info.taken_at or changed))
        dated.sort(key=lambda one: one.document)
        return sorted(dated, key=lambda one: one.date or "", reverse=True)[offset : offset + limit]

    def document(self, id_: int) -> Document:
        one = self.documents[id_]
        times = (one.size, one.mtime_ns, one.caption, one.info.description)
        return Document(id_, self.path(one), one.path, one.modality, *times)

    def find(self, path: str) -> Document | None:
        return next((one for one in map(self.document, self.documents) if one.path == path), None)

    def scan(self, prefix: str = "") -> Iterator[Document]:
        for one in map(self.document, sorted(self.documents)):
            if not prefix or (one.path + "/").startswith(prefix.rstrip("/") + "/"):
                yield one

    def looks(self, documents: Sequence[int]) -> dict[int, Look]:
        infos = {id_: self.documents[id_].info for id_ in documents}
        return {id_: Look(info.width, info.height, info.taken_at) for id_, info in infos.items()}

    def words(self, terms: Sequence[Sequence[str]], limit: int) -> list[Holders]:
        found = []
        for forms in terms:
            texts = {id_: [*self.written(id_).values()] for id_ in self.documents}
            for id_, one in self.documents.items():
                texts[id_] += [segment.text or "" for segment in one.segments]
            wanted = [tokens_of(form) for form in forms]
            held = sorted(
                id_ for id_ in texts if any(has_tokens(tokens_of(t), form) for t in texts[id_] for form in wanted)
            )
            if not held and (part := part_of_name(forms[0])) is not None:
                held = [id_ for id_ in texts if part in " ".join(tokens_of(self.name(self.documents[id_])))]
            found.append(Holders(held, (), len(held)) if len(held) <= limit else Holders((), (), limit + 1))
        return found

    def written(self, document: int) -> dict[str, str]:
        one = self.documents[document]
        texts = {"path": one.path, "folder": one.root.removeprefix("dataset:").rsplit("/", 1)[-1]}
        return texts | {"caption": one.caption or "", "description": one.info.description or ""}

    def lines(self, ids: Sequence[int]) -> dict[int, str]:
        return {}

    def columns(self, ids: base.IdArray) -> Columns:
        places = {one.id: place for place, one in enumerate(self.stored)}
        known = [
            self.kept[1][places[id_]] if places[id_] < len(self.kept[1]) else (0, 0, False) for id_ in ids.tolist()
        ]
        hubness, crowd, is_text = zip(*known, strict=True) if known else ((), (), ())
        return Columns(np.array(hubness, np.float32), np.array(crowd, np.float32), np.array(is_text, bool))

    def calibration(self) -> tuple[Mapping[str, Any], int]:
        return self.kept[0], len(self.kept[1])

    def keep_calibration(self, values: Mapping[str, Any], columns: Columns, start: int) -> None:
        self.kept = (dict(values), [*self.kept[1][:start], *(Columns(*one) for one in zip(*columns, strict=True))])

    def tokens(self, reranker: RerankerSpec, ids: Sequence[int]) -> base.CachedTokens:
        return base.NoTokens()

    # Changes

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
        gone = [id_ for id_ in self.documents if self.satisfies(id_, where)]
        for id_ in gone:
            del self.documents[id_]
        hashes = {one.hash for one in self.documents.values()}
        for one in self.stored:
            one.hash = one.hash if one.hash in hashes else b"gone"
        self.changes += 1
        return len(gone)

    def switch(self, spec: EncoderSpec, name: str) -> None:
        if spec != self.spec:
            raise UsageError("there are no vectors of another encoder")

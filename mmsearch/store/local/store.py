"""An index directory as a store: ids are rows of its vector file."""

from __future__ import annotations

import contextlib
import os
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import IndexBusy, UsageError, VectorError
from mmsearch.core.letters import part_of_name, sought_letters
from mmsearch.core.modalities import names_in
from mmsearch.core.types import Beside, DocumentInfo, EncoderSpec, Modality
from mmsearch.filters import And, OneOf, Spoken, Where
from mmsearch.models.rerankers.base import RerankerSpec
from mmsearch.sources import located
from mmsearch.store.base import (
    Adjust,
    Block,
    CachedTokens,
    Columns,
    Document,
    Exported,
    FloatArray,
    Holders,
    IdArray,
    Look,
    Nearest,
    NewDocument,
    NewSegment,
    Order,
    QueryKind,
    Segment,
    Speech,
    Store,
    StoreFamily,
    changed_at,
    month_of,
)
from mmsearch.store.local.catalogue import Root, RowOwners, Space
from mmsearch.store.local.catalogue.catalogue import BESIDE_COLUMNS
from mmsearch.store.local.catalogue.checksums import digest_of_rows
from mmsearch.store.local.catalogue.coverage import coverage
from mmsearch.store.local.catalogue.matching import (
    Condition,
    contents_of_documents,
    count_where,
    described,
    documents_where,
    documents_with_part,
    documents_with_words,
    find_rows_where,
    folders_where,
    ids_by_date,
    ids_by_path,
    list_by_date,
    looks_of_documents,
    match_phrase,
    months_where,
    revision,
    scan_documents,
    segments_of_contents,
    span_of,
    values_of,
    whole_documents,
    words_of_document,
)
from mmsearch.store.local.catalogue.read_text import has_readings, pictures_with, texts_of_rows
from mmsearch.store.local.catalogue.rows import Found
from mmsearch.store.local.catalogue.sounds import sound_encoder
from mmsearch.store.local.catalogue.speech import is_anything_said, parted, speech_of_rows, spoken_rows, unheard
from mmsearch.store.local.commit import Batch, EncodedContent, PlacedDocument, commit
from mmsearch.store.local.directory import IndexDirectory, keep_private
from mmsearch.store.local.reranker_cache import tokens_at_hand
from mmsearch.store.local.searching import Restriction, Search
from mmsearch.store.local.sounds import LocalSounds
from mmsearch.store.local.vectors import Vectors
from mmsearch.store.local.where import column_of, register_functions, to_condition
from mmsearch.store.registry import local_path

Result = TypeVar("Result")
BLOCK = 4096
EXPORTED = 1000
"""Documents at once."""
NOTHING = Condition("TRUE", {})
DECODING = "store"
NOT_BESIDE: dict[str, Any] = dict.fromkeys(BESIDE_COLUMNS)
"""Of contents whose segments were given, not read from a file."""


class _Kept:
    """A list that is made at first need, by one thread."""

    def __init__(self) -> None:
        self.making = threading.Lock()
        self.value: Any = None


class LocalStore(Store):
    """The vectors of one space of an index directory (by default of the one that is searched), with the catalogue."""

    def __init__(self, directory: IndexDirectory, space: Space | None = None) -> None:
        self.directory = directory
        self._given = space
        self._guard = threading.Lock()
        self._connections = threading.local()
        self.refresh()

    @classmethod
    def open(cls, path: Path) -> LocalStore:
        """That of the index directory at ``path``; see `IndexDirectory.open` for errors."""
        return cls(IndexDirectory.open(path))

    def close(self) -> None:
        """Closes the index directory."""
        self.directory.close()

    def refresh(self) -> None:
        """Reads the version that is committed now."""
        if self._given is not None:
            self.space = self.directory.space_of(self._given.spec) or self._given
        else:
            self.directory.refresh()
            self.space = self.directory.space()
        self._version = self._committed()
        self._dead = self.directory.catalogue.dead_rows(self.space.id)
        self._modalities = frozenset(self.directory.catalogue.modalities(self.space.id))
        self._opened: Vectors | None = None
        self._owned: RowOwners | None = None
        self._matrix = self.directory.matrix(self.space)
        self._calibration: tuple[dict[str, Any], Columns] | None = None
        self._lists: dict[str, _Kept] = {}
        self._sounds: LocalSounds | None = None

    def _committed(self) -> Hashable:
        catalogue = self.directory.catalogue
        return (*catalogue.state(self.space.id), self.space.file, revision(catalogue))

    # What it is

    @property
    def place(self) -> str:
        """The index directory."""
        return str(self.directory.path)

    @property
    def spec(self) -> EncoderSpec:
        """The encoder whose vectors are searched."""
        return self.space.spec

    @property
    def version(self) -> Hashable:
        """Of the rows that this object reads."""
        return self._version

    @property
    def recipe(self) -> str:
        """The name of the recipe that is searched with."""
        return self._vectors.recipe

    @property
    def modalities(self) -> frozenset[Modality]:
        """Of which kinds there are segments."""
        return self._modalities

    @property
    def size(self) -> int:
        """Rows of the vector file."""
        return self.space.row_count

    @property
    def metadata(self) -> dict[str, Any]:
        """See `Store.metadata`."""
        return {
            "name": self.directory.manifest.model,
            "recipe": self.recipe,
            "documents": self.count(),
            "segments": self.size - len(self._dead),
        }

    def is_stale(self) -> bool:
        """Whether a compaction has renumbered the rows, or dropped the space."""
        space = self.directory.space_of(self.spec)
        return space is None or space.file != self.space.file

    def prepare(self) -> None:
        """Starts to read the vector index."""
        _ = self._vectors

    @property
    def _vectors(self) -> Vectors:
        with self._guard:
            if self._opened is None:
                self._opened = Vectors(self.directory, self.space)
                self._matrix = self._opened.matrix  # a second map of the file would count its pages twice
            return self._opened

    def _owners(self) -> RowOwners:
        """Whose the rows are; read at first need."""
        with self._guard:
            if self._owned is None:
                space = self.space
                self._owned = self.directory.catalogue.row_owners(space.id, space.row_count, self._dead)
            return self._owned

    def _restriction(self, where: Where | None) -> Restriction:
        """What `where` says; the kinds that all of it demands are told by rows, without the catalogue."""
        if where is None:
            return Restriction(None, None)
        parts = where.parts if isinstance(where, And) else (where,)
        kinds = [part for part in parts if isinstance(part, OneOf) and part.field == "modality"]
        others = tuple(part for part in parts if part not in kinds)
        condition = self._condition(And(others)) if others else None
        if not kinds:
            return Restriction(condition, None)
        modalities = (name for name in kinds[0].values if all(name in part.values for part in kinds))
        return Restriction(condition, tuple(modalities))

    def _condition(self, where: Where | None) -> Condition:
        """It as a condition of the catalogue."""
        self._register_functions()
        return NOTHING if where is None else to_condition(where, self._folders)

    def _folders(self) -> list[tuple[int, str]]:
        """Ids and absolute paths of the roots that are folders."""
        roots = (root for root in self.directory.catalogue.roots() if not root.is_dataset)
        return [(root.id, str(self.directory.root_path(root))) for root in roots]

    def _register_functions(self) -> None:
        """Teaches this thread's connection the functions of the filters, once."""
        connection = self.directory.catalogue.sql
        if getattr(self._connections, "taught", None) is not connection:
            register_functions(connection)
            self._connections.taught = connection

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
        """See `Store.search`. With a filter, ``k`` counts documents, which are known by then."""
        restriction = self._restriction(where)
        if restriction.modalities is not None:
            allowed: dict[str, Any] = {"only": self._owners().of_modalities(restriction.modalities)}
        else:
            allowed = {"without": self._dead} if len(self._dead) else {}
        if restriction.condition is None:
            wanted = max(k, pool)
            found = self._vectors.search(vectors, wanted, kind=kind, **allowed)
            return [Nearest(near.rows, near.scores, len(near) < wanted) for near in found]
        return [
            Search(
                self.directory.catalogue, self._vectors, self._owners, self._fetch, restriction, allowed, vector, k,
                kind, adjust,
            ).run(pool) for vector in vectors
        ]  # fmt: skip

    def fetch(self, ids: Sequence[int], where: Where | None = None) -> list[Segment]:
        """See `Store.fetch`."""
        return self._fetch(ids, self._restriction(where).condition)

    def _fetch(self, rows: Sequence[int], condition: Condition | None) -> list[Segment]:
        catalogue, space = self.directory.catalogue, self.space.id
        if condition is None:
            return self._segments(catalogue.find_rows(space, rows))
        return self._segments(find_rows_where(catalogue, space, rows, condition))

    def _segments(self, found: Sequence[Found]) -> list[Segment]:
        path_of = self.directory.path_of
        return [Segment(one.row, one.document_id, path_of(one), *one[5:]) for one in found]

    def vectors(self, ids: IdArray) -> FloatArray:
        """See `Store.vectors`."""
        rows: FloatArray = self._matrix[ids].astype(np.float32)
        return rows

    def sample(self, n: int, modalities: Sequence[Modality], seed: int = 0) -> IdArray:
        """See `Store.sample`."""
        rows = self._owners().of_modalities(modalities)
        if len(rows) > n:
            rows = np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))
        return rows

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """See `Store.blocks`."""
        catalogue, count = self.directory.catalogue, self.space.row_count
        texts = catalogue.rows_of_modalities(self.space.id, names_in("text", catalogue.modality_names()))
        is_text, is_dead = (np.zeros(count, dtype=bool) for _ in range(2))
        for marks, rows in ((is_text, texts), (is_dead, catalogue.rows_given_up(self.space.id))):
            marks[rows[rows < count]] = True
        for first in range(start, self.space.row_count, BLOCK):
            part = slice(first, min(first + BLOCK, self.space.row_count))
            ids = np.arange(part.start, part.stop, dtype=np.int64)
            yield Block(ids, self._matrix[part].astype(np.float32), is_text[part], is_dead[part])

    # Documents

    def segments(
        self, documents: Sequence[int], modalities: Sequence[Modality] | None = None
    ) -> tuple[IdArray, IdArray]:
        """See `Store.segments`."""
        holders, contents = contents_of_documents(self.directory.catalogue, documents)
        owners = self._owners()
        places, rows = owners.of_contents(contents)
        holders = holders[places]
        if modalities is not None:
            inside = owners.are_of_modalities(rows, modalities)
            holders, rows = holders[inside], rows[inside]
        return holders, rows

    def matching(self, documents: Sequence[int], where: Where) -> set[int]:
        """See `Store.matching`."""
        return documents_where(self.directory.catalogue, self._condition(where), documents)

    def count(self, where: Where | None = None) -> int:
        """See `Store.count`."""
        return count_where(self.directory.catalogue, None if where is None else self._condition(where))

    def newest(self, where: Where | None, limit: int, offset: int = 0) -> list[Segment]:
        """See `Store.newest`."""
        condition = self._condition(where)
        found = list_by_date(self.directory.catalogue, self.space.id, condition, limit, offset)
        return self._segments(found)

    def find(self, path: str) -> Document | None:
        """See `Store.find`."""
        for root, name in self._places(Path(path)):
            found = scan_documents(self.directory.catalogue, "d.root_id = ? AND d.path = ?", [root.id, name])
            for row in found:
                return self._document(root, *row)
        return None

    def scan(self, prefix: str = "") -> Iterator[Document]:
        """See `Store.scan`."""
        roots = {root.id: root for root in self.directory.catalogue.roots()}
        below = prefix.rstrip("/")
        for row in scan_documents(self.directory.catalogue):
            document = self._document(roots[row[1]], *row)
            if not prefix or document.path == below or document.path.startswith(below + "/"):
                yield document

    def _places(self, path: Path) -> Iterator[tuple[Root, str]]:
        """Where in the roots a path may lie."""
        path = located(path)
        for root in self.directory.catalogue.roots():
            folder = Path("/") if root.is_dataset else self.directory.root_path(root)
            if root.is_dataset:
                yield root, str(path)
            elif folder in path.parents:
                yield root, path.relative_to(folder).as_posix()

    def _document(self, root: Root, id_: int, root_id: int, name: str, *rest: Any) -> Document:
        return Document(id_, self.directory.place(root.path, root.is_relative, name), name, *rest)

    def export(self, where: Where | None = None) -> Iterator[Exported]:
        """See `Store.export`. Documents that lack a vector in this space, and absent ones, are not among them.

        Raises:
            IndexBusy: the rows were renumbered meanwhile (`mmsearch optimize --compact`).
        """
        catalogue, after = self.directory.catalogue, 0
        roots = {root.id: root.path if root.is_dataset else str(self.directory.root_path(root))
                 for root in catalogue.roots()}  # fmt: skip
        while rows := whole_documents(catalogue, self._condition(where), after, EXPORTED):
            after = rows[-1][0]
            parts: dict[int, list[tuple[NewSegment, int | None]]] = {}
            for content, segment, row in segments_of_contents(catalogue, self.space.id, {row[1] for row in rows}):
                parts.setdefault(content, []).append((segment, row))
            if self.is_stale():
                raise IndexBusy(f"{self.place} was compacted while it was exported: export it again")
            documents: list[NewDocument] = []
            places: list[Any] = []
            for _, content, root, path, modality, hash_, size, mtime_ns, caption, info in rows:
                segments, own = zip(*parts.get(content, [(None, None)]), strict=True)
                if root in roots and all(row is not None and row < self.size for row in own):
                    documents.append(
                        NewDocument(path, modality, hash_, segments, roots[root], info, size, mtime_ns, caption)
                    )
                    places += own
            ids = np.array(places, dtype=np.int64)
            yield Exported(documents, ids, self.vectors(ids))

    def looks(self, documents: Sequence[int]) -> dict[int, Look]:
        """See `Store.looks`."""
        return looks_of_documents(self.directory.catalogue, documents)

    def describe(self, documents: Sequence[int]) -> dict[int, DocumentInfo]:
        """See `Store.describe`."""
        place, found = self.directory.place, {}
        for one in described(self.directory.catalogue, documents):
            path = place(one.root, one.root_is_relative, one.path)
            date = one.info.taken_at or changed_at(one.mtime_ns)
            found[one.id] = DocumentInfo(one.id, path, one.modality, one.size, one.mtime_ns, date, one.info)
        return found

    def listed(self, where: Where | None, order: Order, limit: int, offset: int = 0) -> list[DocumentInfo]:
        """See `Store.listed`."""
        if where is None:
            everything = self._every_id(order)
            ids = everything[offset : offset + limit].tolist()
        else:
            ids = self._ids(where, order, limit, offset)
        known = self.describe(ids)
        return [known[id_] for id_ in ids if id_ in known]

    def _ids(self, where: Where | None, order: Order, limit: int, offset: int) -> list[int]:
        catalogue, condition = self.directory.catalogue, self._condition(where)
        if order == "newest":
            return ids_by_date(catalogue, condition, limit, offset)
        roots = sorted(catalogue.roots(), key=lambda one: self.directory.place(one.path, one.is_relative, ""))
        every = ids_by_path(catalogue, condition, [root.id for root in roots])
        return every[offset:] if limit < 0 else every[offset : offset + limit]

    def _every_id(self, order: Order) -> IdArray:
        return self._once(order, lambda: np.array(self._ids(None, order, -1, 0), dtype=np.int64))

    def prepare_lists(self) -> None:
        """See `Store.prepare_lists`."""
        self._every_id("newest")
        self.months()
        self.folders()
        self._every_id("path")

    def _once(self, name: str, make: Callable[[], Result]) -> Result:
        """A list of everything, kept as long as this object reads one version: a page asks for it again and again.

        Whoever asks for it while another thread makes it gets the same one.
        """
        kept = self._lists.setdefault(name, _Kept())
        with kept.making:
            if kept.value is None:
                kept.value = make()
        made: Result = kept.value
        return made

    def months(self, where: Where | None = None) -> list[tuple[str | None, int]]:
        """See `Store.months`."""
        return self._months(where) if where is not None else list(self._once("months", lambda: self._months(None)))

    def _months(self, where: Where | None) -> list[tuple[str | None, int]]:
        counts: Counter[str | None] = Counter()
        for month, count in months_where(self.directory.catalogue, self._condition(where)):
            counts[month_of(month)] += count
        return sorted(counts.items(), key=lambda pair: pair[0] or "", reverse=True)

    def folders(self, where: Where | None = None) -> list[tuple[str, int]]:
        """See `Store.folders`."""
        return (
            self._folders_of(where)
            if where is not None
            else list(self._once("folders", lambda: self._folders_of(None)))
        )

    def _folders_of(self, where: Where | None) -> list[tuple[str, int]]:
        catalogue, counts = self.directory.catalogue, Counter[str]()
        roots = {root.id: root for root in catalogue.roots()}
        found = folders_where(catalogue, None if where is None else self._condition(where))
        for (root, folder), count in found.items():
            counts[self.directory.place(roots[root].path, roots[root].is_relative, folder).rstrip("/")] += count
        return sorted(counts.items())

    def values(self, field: str, limit: int) -> list[tuple[str, int]]:
        """See `Store.values`."""
        return values_of(self.directory.catalogue, column_of(field), limit)

    def span(self, field: str) -> tuple[Any, Any] | None:
        """See `Store.span`."""
        return span_of(self.directory.catalogue, column_of(field))

    # Words

    def words(self, terms: Sequence[Sequence[str]], limit: int) -> list[Holders]:
        """See `Store.words`."""
        catalogue = self.directory.catalogue
        are_read = bool(terms) and (has_readings(catalogue) or is_anything_said(catalogue))
        return [self._holders(forms, limit, are_read) for forms in terms]

    def _holders(self, forms: Sequence[str], limit: int, are_read: bool) -> Holders:
        catalogue, match = self.directory.catalogue, " OR ".join(match_phrase(form) for form in forms)
        written = documents_with_words(catalogue, match, limit)
        if written is None:
            return Holders((), (), limit + 1)
        letters = sought_letters(forms[0])
        read = pictures_with(catalogue, self.space.id, match, letters, limit) if are_read else []
        if not written and not read and (part := part_of_name(forms[0])) is not None:
            written = documents_with_part(catalogue, part, limit)
            if written is None:
                return Holders((), (), limit + 1)
        count = len({*written, *(document for document, _ in read)})
        return Holders(written, read, count) if count <= limit else Holders((), (), limit + 1)

    def written(self, document: int) -> dict[str, str]:
        """See `Store.written`."""
        return words_of_document(self.directory.catalogue, document)

    def lines(self, ids: Sequence[int]) -> dict[int, str]:
        """See `Store.lines`."""
        return texts_of_rows(self.directory.catalogue, self.space.id, ids)

    # Speech

    def spoken(self, wanted: Sequence[Spoken]) -> IdArray:
        """See `Store.spoken`."""
        phrases = [match_phrase(one.words) for one in wanted if one.words is not None]
        languages = {one.language for one in wanted if one.language is not None}
        if len(languages) > 1:
            return np.zeros(0, dtype=np.int64)
        found = spoken_rows(self.directory.catalogue, self.space.id, phrases, next(iter(languages), None))
        return np.array(found, dtype=np.int64)

    def speech(self, ids: Sequence[int]) -> dict[int, Speech]:
        """See `Store.speech`."""
        return speech_of_rows(self.directory.catalogue, self.space.id, ids)

    # Sounds

    def sounds(self) -> LocalSounds | None:
        """See `Store.sounds`; the vectors are read at first need."""
        spec = sound_encoder(self.directory.catalogue)
        with self._guard:
            if spec is not None and self._sounds is None:
                self._sounds = LocalSounds(self.directory, spec, self.matching)
            return self._sounds

    # What others keep with it

    def columns(self, ids: IdArray) -> Columns:
        """See `Store.columns`."""
        kept = self._kept()[1]
        if not len(ids) or int(ids.max()) < len(kept.hubness):
            return Columns(kept.hubness[ids], kept.is_text[ids])
        columns = Columns(np.zeros(len(ids), np.float32), np.zeros(len(ids), bool))
        known = ids < len(kept.hubness)
        for column, of_all in zip(columns, kept, strict=True):
            column[known] = of_all[ids[known]]
        return columns

    def calibration(self) -> tuple[Mapping[str, npt.NDArray[Any]], int]:
        """See `Store.calibration`. It lies in a file beside the vectors, a cache."""
        values, columns = self._kept()
        return values, len(columns.hubness)

    def keep_calibration(self, values: Mapping[str, npt.NDArray[Any]], columns: Columns, start: int) -> None:
        """See `Store.keep_calibration`."""
        before = self._kept()[1]
        grown = Columns(*(np.concatenate([old[:start], new]) for old, new in zip(before, columns, strict=True)))
        self._calibration = (dict(values), grown)
        path = self.directory.background_file(self.space)
        draft = path.with_name(f"{path.name}.{os.getpid()}.new")
        mark = np.array(self._marks(len(grown.hubness))[0])
        arrays: dict[str, Any] = {**values, **grown._asdict(), "mark": mark}
        with contextlib.suppress(OSError):  # a cache that cannot be written is done without
            try:
                with draft.open("wb") as file:
                    np.savez(file, **arrays)
                draft.replace(path)
                keep_private(self.directory.path)
            finally:
                draft.unlink(missing_ok=True)

    def _kept(self) -> tuple[dict[str, Any], Columns]:
        if self._calibration is None:
            self._calibration = self._read_calibration()
        return self._calibration

    def _read_calibration(self) -> tuple[dict[str, Any], Columns]:
        none = np.zeros(0, dtype=np.float32)
        nothing = Columns(none, none.astype(bool))
        try:
            with (
                self.directory.background_file(self.space).open("rb") as file,
                np.load(file, allow_pickle=False) as stored,
            ):
                values = {name: stored[name] for name in stored.files}
            columns = Columns(*(values.pop(name) for name in Columns._fields))
            mark = str(values.pop("mark"))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
            return {}, nothing
        covered = len(columns.hubness)
        if covered > self.space.row_count or mark not in self._marks(covered):
            columns = nothing
        return values, columns

    def _marks(self, rows: int) -> list[str]:
        """What the first ``rows`` rows of the vector file may be called, best name first: other vectors, or the same
        in other rows, have others. The first is of the checksums of all of them, if they have any; the other, which an
        older mmsearch wrote, is of three rows.
        """
        of_all = digest_of_rows(self.directory.catalogue.sql, self.space.file, rows)
        of_three = _mark(self._matrix[:rows])
        return [of_three] if of_all is None else [f"all {of_all}", of_three]

    def tokens(self, reranker: RerankerSpec, ids: Sequence[int]) -> CachedTokens:
        """See `Store.tokens`."""
        return tokens_at_hand(self.directory, self.space, reranker, ids)

    # Changes

    def upsert(self, documents: Sequence[NewDocument], vectors: FloatArray) -> None:
        """See `Store.upsert`, and `mmsearch.store.local.commit`."""
        counts = [len(document.segments) for document in documents]
        if vectors.shape != (sum(counts), self.spec.dim) or not np.isfinite(vectors).all():
            raise VectorError(
                f"{len(documents)} documents have {sum(counts)} segments: expected vectors of shape "
                f"({sum(counts)}, {self.spec.dim}), all finite, got {vectors.shape}"
            )
        parts = np.split(vectors, np.cumsum(counts)[:-1]) if documents else []
        with self.directory.writing(encoder=self.spec) as writer:
            catalogue, batch = writer.catalogue, Batch(writer.space().id)
            roots = {root.path: root.id for root in catalogue.roots()}
            with catalogue.transaction():
                for name in {document.root for document in documents} - roots.keys():
                    roots[name] = catalogue.add_root(name, is_relative=False).id
            new: dict[bytes, EncodedContent] = {}
            spoken = []
            for one, part in zip(documents, parts, strict=True):
                known = catalogue.find_content(one.hash, DECODING, batch.space_id)
                own, passages, said = parted(one.segments)
                spoken.append((passages, part[said]))
                if known is None:
                    info = replace(one.info, **NOT_BESIDE)  # what lies beside one need not hold for its twins
                    new[one.hash] = EncodedContent((one.hash, DECODING), one.modality, info, own, part[~said])
                content = (one.hash, DECODING) if known is None else known[0]
                batch.documents.append(
                    PlacedDocument(
                        roots[one.root],
                        one.path,
                        one.modality,
                        one.size,
                        one.mtime_ns,
                        content,
                        Beside(one.caption, one.info),
                    )
                )
            batch.contents = list(new.values())
            done = commit(writer, batch)
            if heard := unheard(catalogue, zip(done.contents, spoken, strict=True)):
                commit(writer, Batch(batch.space_id, heard=heard))
            with catalogue.transaction():
                catalogue.drop_unused_contents()
        self.refresh()

    def delete(self, where: Where | None) -> int:
        """See `Store.delete`; rows of segments that no document has any more are dead, until `optimize` drops them."""
        condition = self._condition(where)
        with self.directory.writing() as writer:
            register_functions(writer.catalogue.sql)
            with writer.catalogue.transaction():
                gone = [
                    (row[0], row[1], row[2])
                    for row in scan_documents(writer.catalogue, condition.sql, condition.parameters)
                ]
                removed = writer.catalogue.remove_documents(gone)
                writer.catalogue.drop_unused_contents()
        self.refresh()
        return removed

    def switch(self, spec: EncoderSpec, name: str, *, partly: bool = False) -> None:
        """See `Store.switch`; filling in the vectors of an encoder is `mmsearch.switch`."""
        with self.directory.writing() as writer:
            space = writer.space_of(spec)
            counts = None if space is None else coverage(writer.catalogue, space.id)
            if counts is None or (counts.covered < counts.documents and not partly):
                raise UsageError(f"the index lacks vectors of {spec.describe()}: fill them in with `mmsearch switch`")
            writer.with_manifest(model=name, encoder=spec, recipe="exact", vector_index=None)
        self._given = None
        self.refresh()


class LocalFamily(StoreFamily):
    """Index directories: by name, by path, or as ``local:`` and either."""

    takes_folders = True

    def exists(self, address: str) -> bool:
        """See `StoreFamily.exists`."""
        return IndexDirectory.exists(self._path(address))

    def open(self, address: str) -> LocalStore:
        """See `StoreFamily.open`."""
        return LocalStore.open(self._path(address))

    def create(self, address: str, name: str, spec: EncoderSpec) -> LocalStore:
        """See `StoreFamily.create`."""
        IndexDirectory.create(self._path(address), name, spec)
        return self.open(address)

    def _path(self, address: str) -> Path:
        path = local_path(address)
        if path is None:
            raise UsageError(f"{address} is no name and no path of an index")
        return path


def _mark(matrix: npt.NDArray[np.float16]) -> str:
    """Of the first, middle and last row."""
    if not len(matrix):
        return ""
    rows = np.ascontiguousarray(matrix[[0, len(matrix) // 2, len(matrix) - 1]])
    return sha256(rows.tobytes()).hexdigest()[:16]


def is_calibration_damaged(directory: IndexDirectory, space: Space) -> bool:
    """Whether there is one in the index directory that is not what was written; each part of it has a checksum."""
    try:
        with zipfile.ZipFile(directory.background_file(space)) as file:
            return file.testzip() is not None
    except FileNotFoundError:
        return False
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, EOFError, zlib.error):
        return True

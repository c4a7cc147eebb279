"""The public face: an index that is opened, filled and searched."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from mmsearch.api.arguments import listed_given, options_given, path_given, paths_given, queries_given, query_given
from mmsearch.api.session import Live, Session, live_at, make_live, name_to_open, opened
from mmsearch.core.errors import EncoderError, IndexMissing, UsageError
from mmsearch.core.home import DEFAULT_INDEX, default_model
from mmsearch.core.options import from_keywords
from mmsearch.core.shortage import errors_said, says_errors
from mmsearch.core.types import EncoderSpec, Hit, Modality, Progress, Report
from mmsearch.filters import OneOf
from mmsearch.models.encoders.base import Encoder, EncoderOptions
from mmsearch.models.encoders.registry import with_precision
from mmsearch.store.base import Store, check_encoder
from mmsearch.store.registry import local_path

if TYPE_CHECKING:
    import numpy.typing as npt

    from mmsearch.api.arguments import Picture
    from mmsearch.api.browsing import Browsing
    from mmsearch.api.contents import IndexedDocument
    from mmsearch.evaluate import EvaluationOptions, Run
    from mmsearch.ingest import IngestOptions
    from mmsearch.ingest.datasets import ImportOptions
    from mmsearch.ingest.exchange import ExportReport
    from mmsearch.media.sound.passages import Cue
    from mmsearch.models.rerankers.base import Reranker
    from mmsearch.query import Question, Searcher, SearchOptions
    from mmsearch.query.duplicates import Duplicates
    from mmsearch.query.explain import Explanation
    from mmsearch.query.nothing import Hits
    from mmsearch.query.rerank import Reranking
    from mmsearch.store.base import Document
    from mmsearch.store.local.backup import BackupReport
    from mmsearch.store.local.catalogue import Space
    from mmsearch.store.local.directory import IndexDirectory
    from mmsearch.store.local.optimize import OptimizeOptions, OptimizeReport
    from mmsearch.store.local.vector_index import QueryKind
    from mmsearch.switch import SwitchOptions, SwitchReport
    from mmsearch.verify import Verdict

PathLike = str | os.PathLike[str]


@says_errors
class Index:
    """An index of photos, videos and texts that can be searched by meaning.

    Use `Index.open`, best as a context manager. Searching may be done from several threads at once; adding and
    removing is for one thread of one process at a time.

    >>> with Index.open("./photos-index", create=True) as index:   # doctest: +SKIP
    ...     index.add(["./photos"])
    ...     for hit in index.search("mountain lake", k=5):
    ...         print(f"{hit.score:.3f} {hit.path}")
    """

    def __init__(self, live: Live, encoder: Encoder | None, options: EncoderOptions) -> None:
        self._options = options
        self._session = Session(live, encoder, options)

    @classmethod
    def open(
        cls,
        path: PathLike | Store = DEFAULT_INDEX,
        *,
        create: bool = False,
        encoder: str | Encoder | None = None,
        options: EncoderOptions = EncoderOptions(),  # noqa: B008  (frozen)
    ) -> Index:
        """Opens the index at ``path``: a bare name (kept in the data directory of mmsearch), a directory, or what lies
        in another store, which is given as a `Store` (closed with the index) or by its address ``SCHEME:REST``.

        ``encoder`` names the encoder of a new index (by default the model pulled last, ``"builtin"`` until one
        was); for an index that exists it may be left out, and must be the same when given.

        Raises:
            IndexMissing: there is none, and ``create`` is not set.
            EncoderMismatch: the index was made by another encoder.
            EncoderError: the encoder cannot be opened.
            UsageError: an address whose scheme nobody knows.
        """
        place = None if isinstance(path, Store) else local_path(path)
        with errors_said(place):
            return cls._open(path, encoder, options, create=create)

    @classmethod
    def _open(
        cls, path: PathLike | Store, encoder: str | Encoder | None, options: EncoderOptions, *, create: bool
    ) -> Index:
        made = None
        if isinstance(path, Store):
            live = Live(path)
        elif (there := live_at(path)) is not None:
            live = there
        elif create:
            made = opened(encoder or default_model(), options)
            live = make_live(path, with_precision(name_to_open(encoder, made), made, options), made.spec)
        else:
            place = local_path(path) or path
            raise IndexMissing(f"there is no index at {place}: make one with `mmsearch index FOLDER`")
        if made is None and encoder is not None and encoder != live.model:
            try:
                made = opened(encoder, options)
                check_encoder(live.place, live.spec, made.spec)
            except BaseException:
                live.close()
                raise
        return cls(live, made, options)

    @property
    def _directory(self) -> IndexDirectory:
        return self._session.directory

    @property
    def path(self) -> Path:
        """The directory of the index, also after it was closed.

        Raises:
            UsageError: it lies in another store.
        """
        return self._session.path

    @property
    def place(self) -> str:
        """Where the index lies: its directory, or what another store calls its place."""
        return self._session.place

    @property
    def encoder_spec(self) -> EncoderSpec:
        """The identity of the encoder of the index."""
        return self._session.encoder.spec

    def add(
        self,
        paths: PathLike | Iterable[PathLike],
        *,
        options: IngestOptions | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Report:
        """Brings the index up to date with files and folders; see `mmsearch.ingest.ingest`."""
        from mmsearch.ingest import IngestOptions, ingest

        encoder = self.encoder()
        if self._session.is_directory:
            report = ingest(
                self._directory, encoder, paths_given(paths), options_given(IngestOptions, options), progress
            )
        else:
            from mmsearch.ingest.stores import ingest_into

            report = ingest_into(
                self._session.store(), encoder, paths_given(paths), options_given(IngestOptions, options), progress
            )
        self._after_adding(report, encoder)
        return report

    def _add_changes(self, place: Path, options: IngestOptions, progress: Callable[[Progress], None]) -> None:
        """Like `add`, of a part that is indexed already; what was removed from the index stays out."""
        from mmsearch.ingest import ingest

        encoder = self.encoder()
        self._after_adding(ingest(self._directory, encoder, [place], options, progress, changes=True), encoder)

    def watch(
        self,
        paths: PathLike | Iterable[PathLike],
        done: Callable[[Report], None],
        *,
        options: IngestOptions | None = None,
        stop: threading.Event | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Adds files and folders and keeps the index up to date with them, until ``stop`` is set or Ctrl-C.

        ``done`` gets the report of the first run, and of each later one that changed something. When the index is
        switched to another model, it goes on with that.
        """
        from mmsearch.ingest import IngestOptions
        from mmsearch.watch import watch

        self.encoder()

        def report(made: Report) -> None:
            self._after_adding(made, self.encoder())
            done(made)

        chosen, until = options_given(IngestOptions, options), stop or threading.Event()
        watch(self._directory, self.encoder, paths_given(paths), chosen, report, stop=until, progress=progress)

    def _after_adding(self, report: Report, encoder: Encoder) -> None:
        if report.indexed or report.updated:
            encoder.prepare_for_queries()
        self._session.refresh_calibration(encoder)  # also what another version of mmsearch left behind

    def _target(self) -> IndexDirectory | Store:
        return self._directory if self._session.is_directory else self._session.store()

    def _after_importing(self, report: Report) -> Report:
        """The next search makes up for few new rows by itself; for many, this is the time, if there is an encoder."""
        from mmsearch.query.calibrate.calibration import LAZY, segments_without_calibration

        if segments_without_calibration(self._session.store()) > LAZY:
            with suppress(EncoderError):
                self._session.refresh_calibration(self.encoder(texts_only=True))
        return report

    def remove(self, paths: PathLike | Iterable[PathLike]) -> int:
        """Drops the documents at or below ``paths`` from the index, no file from the disk; returns how many."""
        from mmsearch.ingest import remove

        if not self._session.is_directory:
            from mmsearch.ingest.stores import remove_from

            return remove_from(self._session.store(), paths_given(paths))
        return remove(self._directory, paths_given(paths))

    def add_embeddings(
        self,
        vectors: npt.ArrayLike,
        rows: Sequence[Mapping[str, Any]],
        *,
        dataset: str = "embeddings",
        normalize: bool = False,
    ) -> Report:
        """Adds documents whose vectors were made elsewhere, by the encoder of this index.

        ``vectors``: (n, dim) floats of length 1 (``normalize`` brings them to it). ``rows``: one dict a vector, with
        at least ``path`` (or an address) and ``modality``; also ``caption``, ``text`` (of a passage), ``start_s`` and
        ``end_s`` (of a video moment) and the fields of `MediaInfo`. Rows with equal paths are the segments of one
        document. Nothing need lie at the path: it is given back by a search as it is, and `add` and `verify` do not
        look there. A path that ``dataset`` has already is replaced; `remove` takes ``"dataset:NAME"``.

        Raises:
            VectorError: another dimension, values that are not finite, or lengths other than 1.
            UsageError: rows that do not fit the vectors, or lack something.
        """
        from mmsearch.ingest.embeddings import add_embeddings

        if any(not isinstance(row, Mapping) for row in listed_given(rows, "rows are dicts, one for each vector")):
            raise UsageError("rows are dicts, one for each vector")
        return self._after_importing(add_embeddings(self._target(), vectors, rows, dataset, normalize=normalize))

    def import_folder(
        self,
        folder: PathLike,
        *,
        options: ImportOptions | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Report:
        """Takes in a folder of clip-retrieval (npy and parquet); see `mmsearch.ingest.datasets.import_folder`."""
        from mmsearch.ingest.datasets import ImportOptions, import_folder

        chosen = options_given(ImportOptions, options)
        return self._after_importing(import_folder(self._target(), path_given(folder), chosen, progress))

    def import_parquet(self, folder: PathLike, *, progress: Callable[[Progress], None] = lambda _: None) -> Report:
        """Takes in documents with their vectors from Parquet files; see `mmsearch.ingest.exchange.import_parquet`."""
        from mmsearch.ingest.exchange import import_parquet

        return self._after_importing(import_parquet(self._session.store(), path_given(folder), progress))

    def export_parquet(
        self, folder: PathLike, filters: str = "", *, progress: Callable[[Progress], None] = lambda _: None
    ) -> ExportReport:
        """Writes what ``filters`` allow as Parquet files; see `mmsearch.ingest.exchange.export_parquet`."""
        from mmsearch.api.contents import where_of_text
        from mmsearch.ingest.exchange import export_parquet

        return export_parquet(self._session.store(), path_given(folder), where_of_text(filters), progress)

    def verify(
        self, *, mend: bool = False, read_bytes: bool = False, progress: Callable[[Progress], None] = lambda _: None
    ) -> Verdict:
        """Compares catalogue, vector file and disk; see `mmsearch.verify.verify`.

        With ``mend``, what does not agree is mended (files are read again where that takes it), and the verdict
        is that of a second look.

        Raises:
            IndexBusy: another process is writing to the index.
        """
        from mmsearch import verify as verifying

        if not self._session.is_directory:
            return self._verify_store(mend=mend, read_bytes=read_bytes, progress=progress)

        def look() -> Verdict:
            seen = lambda files: progress(Progress("walk", files, None))  # noqa: E731
            if not os.access(self._directory.path, os.W_OK):  # nobody can write to it, so nobody does
                return verifying.verify(self._directory, read_bytes=read_bytes, seen=seen)
            with self._directory.writing(cut=False) as writable:
                return verifying.verify(writable, read_bytes=read_bytes, seen=seen)

        verdict = look()
        if not mend or verdict.clean:
            return verdict
        verifying.mend(
            self._directory,
            verdict.differences,
            lambda place, options: self._add_changes(place, options, progress),
        )
        return look()

    def _verify_store(self, *, mend: bool, read_bytes: bool, progress: Callable[[Progress], None]) -> Verdict:
        from mmsearch.ingest import IngestOptions
        from mmsearch.ingest.stores import folders_of
        from mmsearch.verify.stores import verify_store

        seen = lambda files: progress(Progress("walk", files, None))  # noqa: E731
        store = self._session.store()
        verdict = verify_store(store, read_bytes=read_bytes, seen=seen)
        if not mend or verdict.clean:
            return verdict
        for place, options in folders_of(store):
            self.add([place], options=IngestOptions.from_kept(options), progress=progress)
        return verify_store(self._session.store(), read_bytes=read_bytes, seen=seen)

    def backup(self, path: PathLike) -> BackupReport:
        """Copies the index to the new or empty folder ``path``, as of one moment; see
        `mmsearch.store.local.backup.back_up`.
        """
        from mmsearch.store.local.backup import back_up

        return back_up(self._directory, path_given(path).absolute())

    def optimize(
        self,
        options: OptimizeOptions | None = None,
        *,
        extra_queries: Sequence[str] = (),
        progress: Callable[[str], None] = lambda _: None,
    ) -> OptimizeReport:
        """Builds and tunes the vector index that serves this index best; see `mmsearch.store.local.optimize.optimize`.

        The recall is tuned and measured on queries composed of the captions that ship with mmsearch, and on
        ``extra_queries``.
        """
        from mmsearch.query.calibrate.caption_bank import bank_vectors, generic_captions
        from mmsearch.store.local.optimize import OptimizeOptions, optimize

        encoder = self.encoder(texts_only=True)
        report = optimize(
            self._directory,
            encoder,
            bank_vectors(encoder, generic_captions()),
            options_given(OptimizeOptions, options),
            progress,
            extra_queries=extra_queries,
        )
        self._directory.reread()
        if report.reclaimed:
            self._session.refresh_calibration(encoder)
        return report

    def drop_tokens(self) -> int:
        """Keeps no image tokens for a reranker any more; returns how many bytes that gives back.

        `add` with ``keep_tokens`` in its options makes them again.

        Raises:
            IndexBusy: another process is writing to the index.
        """
        from mmsearch.store.local.reranker_cache import drop_tokens

        with self._directory.writing() as writable:
            return drop_tokens(writable)

    def switch(
        self,
        encoder: str | Encoder,
        *,
        options: SwitchOptions | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> SwitchReport:
        """Changes the model: fills in vectors of ``encoder`` beside the present ones, and lets it answer when they are
        complete; see `mmsearch.switch.switch`.

        Queries go on meanwhile, here and in other processes, and get the hits of one model or of the other, never of
        both. Switching back is quick as long as the other vectors are kept.

        Raises:
            EncoderError: the encoder cannot be opened.
            IndexBusy: another process is changing the model.
        """
        from mmsearch.query.calibrate.calibration import refresh_calibration
        from mmsearch.switch import SwitchOptions, switch

        other = opened(encoder, self._options)
        self._session.encoder.give(other)

        def prepare(space: Space) -> None:
            other.prepare_for_queries()
            refresh_calibration(self._session.store(space), other)

        name, chosen = name_to_open(encoder, other), options_given(SwitchOptions, options)
        if not self._session.is_directory:
            from mmsearch.switch.stores import switch_store

            def prepare_store(store: Store) -> None:
                other.prepare_for_queries()
                refresh_calibration(store, other)

            store = self._session.live.store()
            return switch_store(store, other, chosen, progress, model=name, prepare=prepare_store)
        return switch(self._directory, other, chosen, progress, model=name, prepare=prepare)

    # Searching

    @overload
    def search(
        self,
        text: str | Sequence[str] | None = None,
        *,
        image: Picture | Sequence[Picture] | None = None,
        raw: bool = False,
        text_weight: float | Sequence[float] = 1.0,
        image_weight: float | Sequence[float] = 1.0,
        reranker: str | Reranker | None = None,
        note: Callable[[str], None] | None = None,
        options: SearchOptions | None = None,
        **chosen: Any,
    ) -> Hits: ...

    @overload
    def search(
        self,
        *,
        vector: npt.ArrayLike,
        query_kind: QueryKind = "text",
        options: SearchOptions | None = None,
        **chosen: Any,
    ) -> Any: ...

    def search(
        self,
        text: str | Sequence[str] | None = None,
        *,
        image: Picture | Sequence[Picture] | None = None,
        vector: npt.ArrayLike | None = None,
        query_kind: QueryKind = "text",
        raw: bool = False,
        text_weight: float | Sequence[float] = 1.0,
        image_weight: float | Sequence[float] = 1.0,
        reranker: str | Reranker | None = None,
        note: Callable[[str], None] | None = None,
        options: SearchOptions | None = None,
        **chosen: Any,
    ) -> Any:
        """The ``k`` documents that match best, best first; fewer only if there are fewer. Where there are none, their
        ``reason`` may name the filter or phrase that nothing meets.

        ``text`` is in the query language (`mmsearch.query.language`): ``"lake -people after:2021"``; with ``raw``
        it is taken literally. Several texts and images are one query for what is like all of them, by weight:
        ``search("at night", image="house.jpg", text_weight=0.5)``. A text of filters alone lists by date.

        An image is a path, an image of PIL, an array of uint8 (height, width, 3), RGB, or the bytes of a picture file.

        ``chosen`` are the fields of `SearchOptions` by name, on top of ``options``: ``k=5``, ``modality="text"``,
        ``min_relevance=0.5``, ``collapse=True``, ``words=False`` … ``reranker``, or the name of one, puts the first
        results of queries in words into a better order; where that cannot be done, they stay as they are, and ``note``
        gets the reason (by default a logger), as it gets a sentence about words that the encoder cannot read, and
        one that says which place a name in ``near:`` was taken for.

        ``vector`` instead of a text or an image: an array of shape (dim,) gives hits, (n, dim) a list of hits for
        each row. Ranking is by cosine alone; ``query_kind`` says which tuned parameters of a vector index hold. What
        `status` says of recall can be checked with it.

        Raises:
            VectorError: a vector of another shape, of length 0, or with values that are not finite.
            UsageError: no query, an empty one, an unreadable image, or a senseless option; `QueryError` points
                at the character that breaks the query language.
        """
        search = from_keywords(_search_options(), chosen, options)
        if vector is not None:
            if text is not None or image is not None:
                raise UsageError("give a vector, or texts and images, not both")
            return self._search_vectors(vector, query_kind, search)
        query = query_given(text, image, raw=raw, text_weight=text_weight, image_weight=image_weight)
        return self.search_many([query], reranker=reranker, note=note, options=search)[0]

    def search_many(
        self,
        queries: Sequence[str | Question],
        *,
        raw: bool = False,
        reranker: str | Reranker | None = None,
        note: Callable[[str], None] | None = None,
        options: SearchOptions | None = None,
        **chosen: Any,
    ) -> list[Hits]:
        """The hits of many queries, in their order: few calls of the encoder, few of the vector search.

        Where there are none because of a filter, a phrase or an empty index, ``reason`` of them says so in a sentence.
        Queries are texts, or `mmsearch.Question` for everything else. See `search` for the rest.
        """
        from mmsearch.query.nothing import with_reasons
        from mmsearch.query.searcher import run_queries

        search = from_keywords(_search_options(), chosen, options)
        parsed = queries_given(queries, raw=raw)
        if note is not None:
            for sentence in filter(None, (one.understood for question in parsed for one in question.spelled)):
                note(sentence)
        has_images = any(query.images for query in parsed)
        needs_encoder = has_images or any(query.texts or query.excluded for query in parsed)
        reranking = self._reranking(reranker or search.reranker, note)
        return self._session.run(
            lambda encoder, searcher: with_reasons(
                searcher.store, parsed, search, run_queries(searcher, encoder, parsed, search, reranking, note)
            ),
            self._opening(texts_only=not has_images) if needs_encoder else None,
        )

    def _search_vectors(
        self, vector: npt.ArrayLike, kind: QueryKind, options: SearchOptions
    ) -> list[Hit] | list[list[Hit]]:
        from mmsearch.query.searcher import unit_vectors

        if kind not in ("text", "image"):
            raise UsageError(f"no such kind of query: {kind}; there are text and image")
        hits = self._session.run(
            lambda _, searcher: searcher.nearest(unit_vectors(vector, searcher.store.spec.dim), kind, options)
        )
        return hits[0] if np.ndim(vector) == 1 else hits

    def reranker(self, name: str = "builtin") -> Reranker:
        """A reranker by name, opened at first need: that of the index's encoder, or any that `open_reranker` knows.

        Raises:
            ModelMissing: it is not on this machine.
            EncoderError: there is none of that name, or it cannot be opened.
        """
        if not isinstance(name, str):
            raise UsageError(f"a reranker has a name, got {name!r}")
        return self._session.reranker(name)

    def _reranking(self, reranker: str | Reranker | None, note: Callable[[str], None] | None) -> Reranking | None:
        """The reranker to use, if one is wanted and can be opened."""
        if reranker is None:
            return None
        from mmsearch.models.rerankers.base import Reranker
        from mmsearch.query.rerank import LOG, Reranking

        note = note or LOG.warning
        if isinstance(reranker, Reranker):
            return Reranking(reranker, note)
        if not isinstance(reranker, str):
            raise UsageError(f"a reranker is a name or a Reranker, got {type(reranker).__name__}")
        try:
            return Reranking(self.reranker(reranker), note)
        except EncoderError as error:
            note(f"not reranked: {error}")
            return None

    def explain(
        self,
        text: str,
        path: PathLike,
        *,
        raw: bool = False,
        heat_map: bool = True,
        reranker: str | Reranker | None = None,
        note: Callable[[str], None] | None = None,
    ) -> Explanation:
        """Why an indexed file matches a query, or why not: the parts of its score, and a heat map of its picture.

        ``mmsearch.query.heat.overlay`` draws the map over the picture. With a ``reranker`` the map shows what that
        one looks at; ``note`` gets a line where it cannot be opened.

        Raises:
            UsageError: the file is not in the index.
        """
        from mmsearch.query import encode_questions
        from mmsearch.query.explain import explain

        path_given(path)
        reranking = self._reranking(reranker, note)

        def task(encoder: Any, searcher: Searcher) -> Explanation:
            [query] = encode_questions(encoder, [query_given(text, None, raw=raw)])
            return explain(
                searcher, encoder, query, Path(path), with_heat=heat_map,
                reranker=None if reranking is None else reranking.reranker,
            )  # fmt: skip

        return self._session.run(task, self._opening(texts_only=not heat_map))

    def moments(
        self,
        path: PathLike,
        text: str | Sequence[str] | None = None,
        *,
        image: Picture | Sequence[Picture] | None = None,
        raw: bool = False,
        options: SearchOptions | None = None,
        **chosen: Any,
    ) -> Hits:
        """Where in one video or recording a query matches, best first: hits of this one path, with their times.

        What is shown gives stretches that do not overlap, what is said gives passages. Filters of ``text`` do not
        count; ``chosen`` are fields of `SearchOptions`, of which ``k`` and ``language`` matter here. A picture or a
        text has no moments, and gives none.

        Raises:
            UsageError: the file is not in the index, or there is nothing to compare with.
        """
        from mmsearch.query import encode_questions
        from mmsearch.query.explain import find_document
        from mmsearch.query.nothing import Hits

        search = from_keywords(_search_options(), chosen, options)
        question = query_given(text, image, raw=raw)
        if not question.texts and not question.images:
            raise UsageError("the query has only filters: say in words what to look for in the file")

        def task(encoder: Any, searcher: Searcher) -> Hits:
            document = find_document(searcher.store, path_given(path))
            if document is None:
                raise UsageError(f"{path} is not in the index: index it first")
            [query] = encode_questions(encoder, [question], language=search.language)
            return Hits(searcher.moments(query, search, document.id))

        return self._session.run(task, self._opening(texts_only=not question.images))

    def transcript(self, path: PathLike) -> list[Cue]:
        """What the index knows to be said in a video or recording: passages with times, by time; empty where it knows
        nothing, or has no such file.
        """
        from mmsearch.media.sound.passages import Cue, Word
        from mmsearch.query.explain import find_document
        from mmsearch.store.local.catalogue.speech import transcript_of_document

        document = find_document(self._session.store(), path_given(path))
        found = [] if document is None else transcript_of_document(self._directory.catalogue, document.id)
        return [
            Cue(one.start_s, one.end_s, one.text, one.language, tuple(Word(*word) for word in one.words))
            for one in found
        ]

    # Measuring

    def evaluate(
        self,
        file: PathLike | None = None,
        *,
        qrels: PathLike | None = None,
        template: str = "a photo of a {}.",
        options: EvaluationOptions | None = None,
        reranker: Any = None,
        rerank_depth: int = 50,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Run:
        """How good the results are for the queries of a file; without one, for the captions beside its own files.

        With a ``reranker``, some of the queries (`EvaluationOptions.rerank_questions`) are also run one by one,
        without and with it, and reported to ``progress``: the figures of both stand apart, with the time of each.

        See `mmsearch.evaluate.read_evaluation_set` for the kinds of files, `mmsearch.evaluate.DEFINITIONS` for
        the measures, `mmsearch.evaluate.compare_saved` to test two runs against each other.

        Raises:
            UsageError: the file cannot be read, or no right answer is in the index.
        """
        from mmsearch.evaluate import EvaluationOptions, Run, evaluate, read_evaluation_set
        from mmsearch.evaluate.measuring import captions_of_index

        if not isinstance(template, str):
            raise UsageError(f"a template is a text with {{}} in it, got {template!r}")
        if file is None:
            judged = captions_of_index(self._session.store())
        else:
            judged = read_evaluation_set(path_given(file), None if qrels is None else path_given(qrels), template)
        chosen = options_given(EvaluationOptions, options)
        rank = None if reranker is None else self._ranking(reranker, rerank_depth, chosen.alpha)

        def task(encoder: Any, searcher: Searcher) -> Run:
            self._session.refresh_calibration(encoder)
            figures = evaluate(self._session.store(), encoder, judged, chosen, rank, progress)
            return Run.of(figures, searcher.store.spec.describe())

        return self._session.run(task, self._opening(texts_only=True))

    def _ranking(self, reranker: Any, depth: int, alpha: float) -> Callable[[str, bool], list[int]]:
        """Finds ids of documents, without or with a reranker: pictures and hubness count, words do not."""
        from mmsearch.evaluate.matching import document_ids
        from mmsearch.query import SearchOptions

        ids = document_ids(self._session.store())
        search = SearchOptions(k=depth, words=0.0, hubness=alpha, rerank_depth=depth)

        def rank(text: str, with_reranker: bool) -> list[int]:
            hits = self.search(text, raw=True, reranker=reranker if with_reranker else None, options=search)
            return [ids[hit.path] for hit in hits]

        return rank

    def agreement(self, judgements: PathLike, *, captions: PathLike | None = None) -> dict[str, float]:
        """Kendall's tau between scores and human grades; see `mmsearch.evaluate.agreement`."""
        from mmsearch.evaluate import agreement

        file = None if captions is None else path_given(captions)

        def task(encoder: Any, searcher: Searcher) -> dict[str, float]:
            return agreement(self._session.store(), encoder, path_given(judgements), file)

        return self._session.run(task, self._opening(texts_only=True))

    # State

    def documents(self, filters: str = "") -> Iterator[IndexedDocument]:
        """All documents that ``filters`` allow (``"type:image after:2021"``), in the order in which they came."""
        from mmsearch.api.contents import documents

        return documents(self._session.store(), filters)

    def vectors(self, filters: str = "") -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The vectors of the documents that ``filters`` allow, for clustering, maps and the like: ids int64 (n,), and
        float32 (n, dim) of length 1. The segments of `documents` have the same ids; equal files share one.
        """
        from mmsearch.api.contents import vectors

        return vectors(self._session.store(), filters)

    @property
    def browse(self) -> Browsing:
        """Lists of what the index holds, a page at a time: by date, by path, by month and folder."""
        from mmsearch.api.browsing import Browsing

        return Browsing(self._session.run)

    def duplicates(
        self, filters: str = "", *, near: float | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[Duplicates]:  # fmt: skip
        """Groups of documents that show the same, of those that ``filters`` allow, the best of each first; see
        `mmsearch.query.duplicates.duplicates`. ``near``: the least cosine of their vectors, 0.99 by default.
        ``progress`` is told how many steps of how many are done before the first group comes.
        """
        from mmsearch.api.contents import where_of_text
        from mmsearch.query.duplicates import duplicates
        from mmsearch.query.looks import SAME

        return duplicates(self._session.store(), where_of_text(filters), SAME if near is None else near, progress)

    def modality_of(self, path: PathLike) -> Modality | None:
        """Of the document at ``path``, also of a member of an archive; ``None`` where the index has none there."""
        document = self.document_at(path)
        return None if document is None else document.modality

    def document_at(self, path: PathLike) -> Document | None:
        """What the index knows of the file at ``path``; ``None`` where it has none there."""
        from mmsearch.query.explain import find_document

        if isinstance(path, str) and "\0" in path:
            return None  # what no file can be called is in no index
        path_given(path)
        return find_document(self._session.store(), Path(path))

    def status(self) -> dict[str, Any]:
        """What the index holds, as plain values: counts of documents, encoder, roots, bytes on disk.

        ``models`` has an entry for each encoder with vectors in the index: ``answers`` for the one that queries are
        asked of, and how many of the ``documents`` it covers.
        """
        if not self._session.is_directory:
            return _status_of(self._session.store())
        from mmsearch.store.local.catalogue.coverage import describe_spaces
        from mmsearch.store.local.catalogue.read_text import reading_counts
        from mmsearch.store.local.catalogue.sounds import sound_counts
        from mmsearch.store.local.catalogue.speech import speech_counts
        from mmsearch.store.local.reranker_cache import describe_tokens

        directory = self._directory
        directory.refresh()
        space = directory.space()
        return {
            "path": str(directory.path),
            "model": directory.manifest.model,
            "encoder": directory.manifest.encoder.describe(),
            "recipe": directory.manifest.recipe,
            "vector_index": directory.manifest.vector_index,
            "documents": {
                **directory.catalogue.counts(),
                "dead_rows": len(directory.catalogue.rows_given_up(space.id)),
            },
            "ocr": reading_counts(directory.catalogue),
            "speech": speech_counts(directory.catalogue),
            "sounds": sound_counts(directory.catalogue),
            "vectors": space.row_count,
            "models": describe_spaces(directory.catalogue, space.id, directory.manifest.model),
            "roots": [str(directory.root_path(root)) for root in directory.catalogue.roots()],
            "bytes": directory.size_bytes(),
            "tokens": describe_tokens(directory, space),
        }

    def encoder(self, *, texts_only: bool = False) -> Encoder:
        """The encoder of the index, opened at first need; ``texts_only`` may give one whose text encoder alone is
        ready, which is quicker to open.
        """
        return self._session.encoder.get(texts_only=texts_only)

    def _opening(self, *, texts_only: bool) -> Callable[[], Encoder]:
        """Opens the encoder of the state at which a search has just looked."""
        return lambda: self._session.encoder.get(texts_only=texts_only, refresh=False)

    def close(self) -> None:
        """Closes the index; it cannot be used afterwards."""
        self._session.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _status_of(store: Store) -> dict[str, Any]:
    """What any store says of itself, as `Index.status` has it."""
    store.refresh()
    values, names = store.metadata, sorted(store.modalities)
    documents = {name: store.count(OneOf("modality", (name,))) for name in names}
    counts = {"segments": values["segments"], "skipped": 0, "absent": 0, "dead_rows": store.size - values["segments"]}
    return {
        "path": store.place, "model": values["name"], "encoder": store.spec.describe(), "recipe": values["recipe"],
        "vector_index": None, "documents": {**documents, **counts}, "ocr": {"read": 0}, "vectors": store.size,
        "models": [], "roots": [], "bytes": None, "tokens": None,
    }  # fmt: skip


def _search_options() -> type[SearchOptions]:
    from mmsearch.query.options import SearchOptions

    return SearchOptions

"""The public face: an index that is opened, filled and searched."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from mmsearch.encoders.base import Encoder, EncoderOptions
from mmsearch.errors import IndexMissing, UsageError
from mmsearch.home import DEFAULT_INDEX, default_model, locate_index
from mmsearch.index import IndexDirectory
from mmsearch.types import EncoderSpec, Hit, Modality, Progress, Report

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from mmsearch.evaluate import EvaluationOptions, Run
    from mmsearch.ingest import IngestOptions
    from mmsearch.ingest.datasets import ImportOptions
    from mmsearch.optimize import OptimizeOptions, OptimizeReport
    from mmsearch.search import Question, Searcher, SearchOptions
    from mmsearch.vector_index import QueryKind
    from mmsearch.verify import Verdict

    Picture = str | os.PathLike[str] | Image

PathLike = str | os.PathLike[str]
Answer = TypeVar("Answer")


class Index:
    """An index of photos, videos and texts that can be searched by meaning.

    Use `Index.open`, best as a context manager. Searching may be done from several threads at once; adding and
    removing is for one thread of one process at a time.

    >>> with Index.open("./photos-index", create=True) as index:   # doctest: +SKIP
    ...     index.add(["./photos"])
    ...     for hit in index.search("mountain lake", k=5):
    ...         print(f"{hit.score:.3f} {hit.path}")
    """

    def __init__(self, directory: IndexDirectory, encoder: Encoder | None, options: EncoderOptions) -> None:
        self._directory = directory
        self._encoder = encoder
        self._text_encoder = encoder
        self._options = options
        self._lock = threading.Lock()
        self._searcher: tuple[Any, Searcher] | None = None

    @classmethod
    def open(
        cls,
        path: PathLike = DEFAULT_INDEX,
        *,
        create: bool = False,
        encoder: str | Encoder | None = None,
        options: EncoderOptions = EncoderOptions(),  # noqa: B008  (frozen)
    ) -> Index:
        """Opens the index at ``path``: a bare name (kept in the data directory of mmsearch) or a directory.

        ``encoder`` names the encoder of a new index (by default the model pulled last, ``"builtin"`` until one
        was); for an index that exists it may be left out, and must be the same when given.

        Raises:
            IndexMissing: there is none, and ``create`` is not set.
            EncoderMismatch: the index was made by another encoder.
            EncoderError: the encoder cannot be opened.
        """
        place = locate_index(path)
        if not IndexDirectory.exists(place):
            if not create:
                raise IndexMissing(f"there is no index at {place}: make one with `mmsearch index FOLDER`")
            opened = _opened(encoder or default_model(), options)
            IndexDirectory.create(place, opened.spec.name, opened.spec)
            return cls(IndexDirectory.open(place), opened, options)
        directory = IndexDirectory.open(place)
        if encoder is None or encoder == directory.manifest.model:
            return cls(directory, None, options)
        try:
            opened = _opened(encoder, options)
            directory.check_encoder(opened.spec)
        except BaseException:
            directory.close()
            raise
        return cls(directory, opened, options)

    @property
    def path(self) -> Path:
        """The directory of the index."""
        return self._directory.path

    @property
    def encoder_spec(self) -> EncoderSpec:
        """The identity of the encoder that made the index."""
        return self._directory.manifest.encoder

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
        report = ingest(self._directory, encoder, _paths(paths), options or IngestOptions(), progress)
        if report.indexed or report.updated:
            encoder.prepare_for_queries()
            self._refresh_background(encoder)
        return report

    def _refresh_background(self, encoder: Encoder) -> None:
        from mmsearch.search.background import refresh_background

        refresh_background(self._directory, self._directory.tower(), encoder)

    def remove(self, paths: PathLike | Iterable[PathLike]) -> int:
        """Drops the documents at or below ``paths`` from the index, no file from the disk; returns how many."""
        from mmsearch.ingest import remove

        return remove(self._directory, _paths(paths))

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

        return add_embeddings(self._directory, vectors, rows, dataset, normalize=normalize)

    def import_folder(
        self,
        folder: PathLike,
        *,
        options: ImportOptions | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Report:
        """Takes in a folder of clip-retrieval (npy and parquet); see `mmsearch.ingest.datasets.import_folder`."""
        from mmsearch.ingest.datasets import ImportOptions, import_folder

        return import_folder(self._directory, Path(folder).expanduser(), options or ImportOptions(), progress)

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
            lambda place, options: self.add(place, options=options, progress=progress),
        )
        return look()

    def optimize(
        self,
        options: OptimizeOptions | None = None,
        *,
        extra_queries: Sequence[str] = (),
        progress: Callable[[str], None] = lambda _: None,
    ) -> OptimizeReport:
        """Builds and tunes the vector index that serves this index best; see `mmsearch.optimize.optimize`.

        The recall is tuned and measured on the captions that ship with mmsearch and on ``extra_queries``.
        """
        from mmsearch.optimize import OptimizeOptions, optimize
        from mmsearch.search.background import generic_captions

        encoder = self.encoder(texts_only=True)
        texts = list(dict.fromkeys((*generic_captions(), *extra_queries)))
        report = optimize(self._directory, encoder, texts, options or OptimizeOptions(), progress)
        self._directory.reread()
        if report.reclaimed:
            self._refresh_background(encoder)
        return report

    @overload
    def search(
        self,
        text: str | Sequence[str] | None = None,
        *,
        image: Picture | Sequence[Picture] | None = None,
        k: int = 10,
        modality: Modality | Sequence[Modality] | None = None,
        raw: bool = False,
        text_weight: float = 1.0,
        image_weight: float = 1.0,
        min_score: float | None = None,
        collapse: bool = False,
        words: bool = True,
        options: SearchOptions | None = None,
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        *,
        vector: npt.ArrayLike,
        query_kind: QueryKind = "text",
        k: int = 10,
        modality: Modality | Sequence[Modality] | None = None,
    ) -> Any: ...

    def search(
        self,
        text: str | Sequence[str] | None = None,
        *,
        image: Picture | Sequence[Picture] | None = None,
        vector: npt.ArrayLike | None = None,
        query_kind: QueryKind = "text",
        k: int = 10,
        modality: Modality | Sequence[Modality] | None = None,
        raw: bool = False,
        text_weight: float = 1.0,
        image_weight: float = 1.0,
        min_score: float | None = None,
        collapse: bool = False,
        words: bool = True,
        options: SearchOptions | None = None,
    ) -> Any:
        """The ``k`` documents that answer best, best first; fewer only if there are fewer.

        ``text`` is in the query language (`mmsearch.query_language`): ``"lake -people after:2021"``; with ``raw``
        it is taken literally. Several texts and images are one question that is like all of them, by weight:
        ``search("at night", image="house.jpg", text_weight=0.5)``. A text of filters alone lists by date.

        Without ``modality`` or ``type:``, images and videos answer. ``min_score`` leaves out hits of less
        relevance, 0 to 1; ``collapse`` folds near-duplicates; ``words=False`` ignores file names, folders, captions
        and texts. ``options`` replaces all of these, ``k`` and ``modality``.

        ``vector`` instead of a text or an image: numbers of shape (dim,) give hits, (n, dim) a list of hits for
        each. Ranking is by cosine alone; ``query_kind`` says which tuned parameters of a vector index hold. What
        `status` says of recall can be checked with it.

        Raises:
            VectorError: a vector of another shape, of length 0, or with values that are not finite.
            UsageError: no query, an empty one, an unreadable image, or a senseless option; `QueryError` points
            at the character that breaks the query language.
        """
        if vector is not None:
            if text is not None or image is not None:
                raise UsageError("give a vector, or texts and images, not both")
            return self._search_vectors(vector, query_kind, _options(k, modality, None, False, False))
        question = _question(text, image, raw=raw, text_weight=text_weight, image_weight=image_weight)
        chosen = options or _options(k, modality, min_score, collapse, words)
        return self.search_many([question], options=chosen)[0]

    def _search_vectors(
        self, vector: npt.ArrayLike, kind: QueryKind, options: SearchOptions
    ) -> list[Hit] | list[list[Hit]]:
        from mmsearch.search.by_vector import as_queries

        if kind not in ("text", "image"):
            raise UsageError(f"no such kind of query: {kind}; there are text and image")
        queries = as_queries(vector, self.encoder_spec.dim)
        answers = self._asked(lambda searcher: searcher.nearest(queries, kind, options))
        return answers[0] if np.ndim(vector) == 1 else answers

    def _asked(self, ask: Callable[[Searcher], Answer]) -> Answer:
        """What ``ask`` makes of the current searcher; asked again when a compaction renumbered the rows meanwhile."""
        while True:
            searcher = self._current_searcher()
            answer = ask(searcher)
            if self._directory.tower().file == searcher.file:
                return answer

    def search_many(
        self,
        questions: Sequence[str | Question],
        *,
        k: int = 10,
        modality: Modality | Sequence[Modality] | None = None,
        raw: bool = False,
        min_score: float | None = None,
        collapse: bool = False,
        words: bool = True,
        options: SearchOptions | None = None,
    ) -> list[list[Hit]]:
        """The answers to many questions, in their order: one call of the encoder, one of the vector search.

        Questions are texts, or `mmsearch.search.Question` for everything else. See `search` for the rest.
        """
        from mmsearch.search import encode_questions

        chosen = options or _options(k, modality, min_score, collapse, words)
        asked = [_question(one, None, raw=raw) if isinstance(one, str) else one for one in questions]
        if any(one.images for one in asked):
            encoded = encode_questions(self.encoder(), asked)
        elif any(one.texts or one.excluded for one in asked):
            encoded = encode_questions(self.encoder(texts_only=True), asked)
        else:
            encoded = encode_questions(None, asked)
        return self._asked(lambda searcher: searcher.search_many(encoded, chosen))

    def evaluate(
        self,
        file: PathLike | None = None,
        *,
        qrels: PathLike | None = None,
        template: str = "a photo of a {}.",
        options: EvaluationOptions | None = None,
    ) -> Run:
        """How well the index answers the questions of a file; without one, the captions beside its own files.

        See `mmsearch.evaluate.read_evaluation_set` for the kinds of files, `mmsearch.evaluate.DEFINITIONS` for
        the measures, `mmsearch.evaluate.compare_saved` to test two runs against each other.

        Raises:
            UsageError: the file cannot be read, or no right answer is in the index.
        """
        from mmsearch.evaluate import EvaluationOptions, Run, evaluate, read_evaluation_set
        from mmsearch.evaluate.measuring import captions_of_index

        if file is None:
            judged = captions_of_index(self._directory)
        else:
            judged = read_evaluation_set(Path(file), None if qrels is None else Path(qrels), template)
        encoder = self.encoder(texts_only=True)
        self._refresh_background(encoder)
        found = evaluate(self._directory, encoder, judged, options or EvaluationOptions())
        return Run.of(found, self.encoder_spec.describe())

    def agreement(self, judgements: PathLike) -> dict[str, float]:
        """Kendall's tau between scores and human grades; see `mmsearch.evaluate.agreement`."""
        from mmsearch.evaluate import agreement

        return agreement(self._directory, self.encoder(texts_only=True), Path(judgements))

    def status(self) -> dict[str, Any]:
        """What the index holds, as plain values: counts of documents, encoder, roots, bytes on disk."""
        directory = self._directory
        tower = directory.tower()
        return {
            "path": str(directory.path),
            "model": directory.manifest.model,
            "encoder": directory.manifest.encoder.describe(),
            "recipe": directory.manifest.recipe,
            "vector_index": directory.manifest.vector_index,
            "documents": directory.catalogue.counts(),
            "vectors": tower.row_count,
            "roots": [str(directory.root_path(root)) for root in directory.catalogue.roots()],
            "bytes": directory.size_bytes(),
        }

    def encoder(self, *, texts_only: bool = False) -> Encoder:
        """The encoder of the index, opened at first need; ``texts_only`` may give one whose text tower alone is
        ready, which is quicker to open.
        """
        with self._lock:
            ready = self._text_encoder if texts_only else self._encoder
            if ready is None:
                from mmsearch.encoders import open_encoder

                ready = open_encoder(self._directory.manifest.model, self._options, texts_only=texts_only)
                self._directory.check_encoder(ready.spec)
                self._text_encoder = ready
                if not texts_only:
                    self._encoder = ready
            return ready

    def _current_searcher(self) -> Searcher:
        """A searcher of the last committed state; reopened when another thread or process has committed."""
        from mmsearch.catalogue.matching import revision
        from mmsearch.search import Searcher
        from mmsearch.search.background import LAZY_ROWS, refresh_background

        with self._lock:
            directory, ready = self._directory, self._text_encoder
            state = (directory.state(), revision(directory.catalogue))
            if self._searcher is None or self._searcher[0] != state:
                background = None
                if ready is not None:
                    background = refresh_background(directory, directory.tower(), ready, LAZY_ROWS)
                self._searcher = (state, Searcher(directory, background))
            return self._searcher[1]

    def close(self) -> None:
        """Closes the index; it cannot be used afterwards."""
        self._searcher = None
        self._directory.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _opened(encoder: str | Encoder, options: EncoderOptions) -> Encoder:
    if isinstance(encoder, Encoder):
        return encoder
    from mmsearch.encoders import open_encoder

    return open_encoder(encoder, options)


def _paths(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    single = isinstance(paths, (str, os.PathLike))
    found = [Path(paths)] if single else [Path(path) for path in paths]  # type: ignore[arg-type, union-attr]
    if not found:
        raise UsageError("no files or folders given")
    return found


def _question(
    text: str | Sequence[str] | None,
    image: Picture | Sequence[Picture] | None,
    *,
    raw: bool,
    text_weight: float = 1.0,
    image_weight: float = 1.0,
) -> Question:
    from mmsearch.search import Question

    texts = [text] if isinstance(text, str) else list(text or ())
    pictures = list(image) if isinstance(image, (list, tuple)) else [] if image is None else [image]
    sources = [Path(one) if isinstance(one, (str, os.PathLike)) else one for one in pictures]
    return Question.of(texts, sources, text_weight=text_weight, image_weight=image_weight, raw=raw)


def _options(
    k: int,
    modality: Modality | Sequence[Modality] | None,
    min_score: float | None,
    collapse: bool,
    words: bool,
) -> SearchOptions:
    from mmsearch.search import SearchOptions

    modalities = (modality,) if isinstance(modality, str) else None if modality is None else tuple(modality)
    chosen = SearchOptions(k=k, modalities=modalities, min_relevance=min_score, collapse=collapse)
    return chosen if words else replace(chosen, words=0.0)

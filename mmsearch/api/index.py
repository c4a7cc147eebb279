"""The public face: an index that is opened, filled and searched."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from mmsearch.api.asking import PathLike
from mmsearch.api.evaluating import Evaluating
from mmsearch.api.index_encoder import IndexEncoder, name_to_open, opened
from mmsearch.core.errors import EncoderError, IndexMissing, UsageError
from mmsearch.core.home import DEFAULT_INDEX, default_model, locate_index
from mmsearch.core.types import EncoderSpec, Modality, Progress, Report
from mmsearch.models.encoders.base import Encoder, EncoderOptions
from mmsearch.store.local.directory import IndexDirectory

if TYPE_CHECKING:
    import numpy.typing as npt

    from mmsearch.ingest import IngestOptions
    from mmsearch.ingest.datasets import ImportOptions
    from mmsearch.models.rerankers.base import Reranker
    from mmsearch.query import Searcher
    from mmsearch.store.local.backup import BackupReport
    from mmsearch.store.local.catalogue import Space
    from mmsearch.store.local.optimize import OptimizeOptions, OptimizeReport
    from mmsearch.switch import SwitchOptions, SwitchReport
    from mmsearch.verify import Verdict


class Index(Evaluating):
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
        self._options = options
        self._lock = threading.Lock()
        self._encoder = IndexEncoder(directory, encoder, options, self._lock)
        self._searcher: tuple[Any, Searcher] | None = None
        self._rerankers: dict[str, Reranker] = {}

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
            made = opened(encoder or default_model(), options)
            IndexDirectory.create(place, name_to_open(encoder, made), made.spec)
            return cls(IndexDirectory.open(place), made, options)
        directory = IndexDirectory.open(place)
        if encoder is None or encoder == directory.manifest.model:
            return cls(directory, None, options)
        try:
            found = opened(encoder, options)
            directory.check_encoder(found.spec)
        except BaseException:
            directory.close()
            raise
        return cls(directory, found, options)

    @property
    def path(self) -> Path:
        """The directory of the index."""
        return self._directory.path

    @property
    def encoder_spec(self) -> EncoderSpec:
        """The identity of the encoder that answers."""
        with self._lock:
            self._directory.refresh()
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

        chosen, until = options or IngestOptions(), stop or threading.Event()
        watch(self._directory, self.encoder, _paths(paths), chosen, report, stop=until, progress=progress)

    def _after_adding(self, report: Report, encoder: Encoder) -> None:
        if report.indexed or report.updated:
            encoder.prepare_for_queries()
        self._refresh_background(encoder)  # also what another version of mmsearch left behind

    def _after_importing(self, report: Report) -> Report:
        """The next search makes up for few new rows by itself; for many, this is the time, if there is an encoder."""
        from mmsearch.query.calibrate.calibration import LAZY_ROWS, rows_without_background

        if rows_without_background(self._directory, self._directory.space()) > LAZY_ROWS:
            with suppress(EncoderError):
                self._refresh_background(self.encoder(texts_only=True))
        return report

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

        return self._after_importing(add_embeddings(self._directory, vectors, rows, dataset, normalize=normalize))

    def import_folder(
        self,
        folder: PathLike,
        *,
        options: ImportOptions | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Report:
        """Takes in a folder of clip-retrieval (npy and parquet); see `mmsearch.ingest.datasets.import_folder`."""
        from mmsearch.ingest.datasets import ImportOptions, import_folder

        chosen = options or ImportOptions()
        return self._after_importing(import_folder(self._directory, Path(folder).expanduser(), chosen, progress))

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
            lambda place, options: self._add_changes(place, options, progress),
        )
        return look()

    def backup(self, path: PathLike) -> BackupReport:
        """Copies the index to the new or empty folder ``path``, as of one moment; see
        `mmsearch.store.local.backup.back_up`.
        """
        from mmsearch.store.local.backup import back_up

        return back_up(self._directory, Path(path).expanduser().absolute())

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
        from mmsearch.query.calibrate.calibration import generic_captions
        from mmsearch.query.calibrate.caption_bank import bank_vectors
        from mmsearch.store.local.optimize import OptimizeOptions, optimize

        encoder = self.encoder(texts_only=True)
        report = optimize(
            self._directory,
            encoder,
            bank_vectors(encoder, generic_captions()),
            options or OptimizeOptions(),
            progress,
            extra_queries=extra_queries,
        )
        self._directory.reread()
        if report.reclaimed:
            self._refresh_background(encoder)
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

        Queries go on meanwhile, here and in other processes, and get answers of one model or of the other, never of
        both. Switching back is quick as long as the other vectors are kept.

        Raises:
            EncoderError: the encoder cannot be opened.
            IndexBusy: another process is changing the model.
        """
        from mmsearch.query.calibrate.calibration import refresh_background
        from mmsearch.switch import SwitchOptions, switch

        other = opened(encoder, self._options)
        self._encoder.give(other)

        def prepare(space: Space) -> None:
            other.prepare_for_queries()
            refresh_background(self._directory, space, other)

        name, chosen = name_to_open(encoder, other), options or SwitchOptions()
        return switch(self._directory, other, chosen, progress, model=name, prepare=prepare)

    def modality_of(self, path: PathLike) -> Modality | None:
        """Of the document at ``path``, also of a member of an archive; ``None`` where the index has none there."""
        from mmsearch.query.explain import find_document

        found = find_document(self._directory, Path(path))
        return None if found is None else found[1]

    def status(self) -> dict[str, Any]:
        """What the index holds, as plain values: counts of documents, encoder, roots, bytes on disk.

        ``models`` has an entry for each encoder with vectors in the index: ``answers`` for the one that queries are
        asked of, and how many of the ``documents`` it covers.
        """
        from mmsearch.store.local.catalogue.coverage import describe_spaces
        from mmsearch.store.local.catalogue.read_text import reading_counts
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
        return self._encoder.get(texts_only=texts_only)

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


def _paths(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    single = isinstance(paths, (str, os.PathLike))
    found = [Path(paths)] if single else [Path(path) for path in paths]  # type: ignore[arg-type, union-attr]
    if not found:
        raise UsageError("no files or folders given")
    return found

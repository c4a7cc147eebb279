"""The public face: an index that is opened, filled and searched."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mmsearch.encoders.base import Encoder, EncoderOptions
from mmsearch.errors import IndexMissing, UsageError
from mmsearch.home import DEFAULT_INDEX, default_model, locate_index
from mmsearch.index import IndexDirectory
from mmsearch.types import EncoderSpec, Hit, Modality, Progress, Report

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.ingest import IngestOptions
    from mmsearch.search import Searcher

PathLike = str | os.PathLike[str]


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
        return report

    def remove(self, paths: PathLike | Iterable[PathLike]) -> int:
        """Drops the documents at or below ``paths`` from the index, no file from the disk; returns how many."""
        from mmsearch.ingest import remove

        return remove(self._directory, _paths(paths))

    def search(
        self,
        text: str | None = None,
        *,
        image: PathLike | Image | None = None,
        k: int = 10,
        modality: Modality | Sequence[Modality] | None = None,
    ) -> list[Hit]:
        """The ``k`` documents nearest to a text or to an image, best first; fewer only if there are fewer.

        Without ``modality``, images and videos answer; ``modality="text"`` finds text passages.

        Raises:
            UsageError: no query, an empty one, an unreadable image, or a senseless option.
        """
        from mmsearch.search import SearchOptions, encode_query

        modalities = (modality,) if isinstance(modality, str) else None if modality is None else tuple(modality)
        options = SearchOptions(k=k, modalities=modalities)
        source = Path(image) if isinstance(image, (str, os.PathLike)) else image
        vector = encode_query(self.encoder(texts_only=image is None), text, source)
        return self._current_searcher().search(vector, options)

    def status(self) -> dict[str, Any]:
        """What the index holds, as plain values: counts of documents, encoder, roots, bytes on disk."""
        directory = self._directory
        tower = directory.tower()
        return {
            "path": str(directory.path),
            "model": directory.manifest.model,
            "encoder": directory.manifest.encoder.describe(),
            "recipe": directory.manifest.recipe,
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
        from mmsearch.search import Searcher

        with self._lock:
            state = self._directory.catalogue.state(self._directory.tower().id)
            if self._searcher is None or self._searcher[0] != state:
                self._searcher = (state, Searcher(self._directory))
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

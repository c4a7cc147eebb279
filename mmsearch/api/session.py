"""What an open index keeps between calls: its encoder, its searcher and rerankers, each opened at first need."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mmsearch.core.errors import EncoderError, EncoderMismatch, UsageError
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.base import Encoder, EncoderOptions
from mmsearch.models.encoders.registry import canonical_name
from mmsearch.store.local.directory import IndexDirectory, same_encoder

if TYPE_CHECKING:
    from mmsearch.models.rerankers.base import Reranker
    from mmsearch.query import Searcher
    from mmsearch.store.local.catalogue import Space
    from mmsearch.store.local.store import LocalStore

Result = TypeVar("Result")


class Session:
    """The parts that searches of an index share, of its last committed state. Any number of threads may use it."""

    def __init__(self, directory: IndexDirectory, encoder: Encoder | None, options: EncoderOptions) -> None:
        self._directory, self.options = directory, options
        self.path = directory.path
        self._is_closed = False
        self._lock = threading.Lock()
        self.encoder = IndexEncoder(directory, encoder, options, self._lock)
        self._searcher: tuple[Any, Searcher] | None = None
        self._rerankers: dict[str, Reranker] = {}

    @property
    def directory(self) -> IndexDirectory:
        """The open index directory.

        Raises:
            UsageError: the index was closed.
        """
        if self._is_closed:
            raise UsageError(f"the index {self.path} was closed: open it again")
        return self._directory

    def run(
        self, task: Callable[[Encoder | None, Searcher], Result], encoder: Callable[[], Encoder] | None = None
    ) -> Result:
        """The result of ``task`` for the encoder and the current searcher, which are always of one model.

        Run again when the index was switched to another model, or a compaction renumbered the rows, meanwhile: the
        rows may be other ones then, or their file may be gone.
        """
        while True:
            before = self._vector_file()
            try:
                opened = None if encoder is None else encoder()
                searcher = self.searcher()
                if opened is not None and not same_encoder(opened.spec, searcher.store.spec):
                    continue
                result = task(opened, searcher)
            except Exception:
                if self._vector_file() == before:
                    raise
                continue
            if self._is_current(searcher):
                return result

    def searcher(self) -> Searcher:
        """A searcher of the last committed state; reopened when another thread or process has committed."""
        from mmsearch.query import Searcher
        from mmsearch.query.calibrate.calibration import LAZY, refresh_calibration
        from mmsearch.store.local.catalogue.matching import revision

        with self._lock:
            directory, ready = self.directory, self.encoder.ready
            state = (directory.state(), revision(directory.catalogue))
            if self._searcher is None or self._searcher[0] != state:
                store = self.store()
                calibration = None if ready is None else refresh_calibration(store, ready, LAZY)
                self._searcher = (state, Searcher(store, calibration))
            return self._searcher[1]

    def reranker(self, name: str) -> Reranker:
        """A reranker by its name, opened at first need."""
        from mmsearch.models.rerankers import open_reranker

        encoder = self.encoder.get()
        with self._lock:
            key = f"{name} {encoder.spec.key}"  # after a switch, the encoder's own reranker is another one
            if key not in self._rerankers:
                self._rerankers[key] = open_reranker(name, self.options, encoder)
            return self._rerankers[key]

    def refresh_calibration(self, encoder: Encoder) -> None:
        """Works out what is known of the scores of the index, as far as that is out of date."""
        from mmsearch.query.calibrate.calibration import refresh_calibration

        refresh_calibration(self.store(), encoder)

    def store(self, space: Space | None = None) -> LocalStore:
        """The last committed state as a store, of a space or of the one that is searched."""
        from mmsearch.store.local.store import LocalStore

        return LocalStore(self.directory, space)

    def close(self) -> None:
        """Closes the index directory."""
        self._searcher, self._is_closed = None, True
        self._directory.close()

    def _vector_file(self) -> str:
        """The vector file that is searched now."""
        with self._lock:
            self.directory.refresh()
            return self.directory.space().file

    def _is_current(self, searcher: Searcher) -> bool:
        """Whether the searcher's encoder is the index's as far as this object knows, and its ids can be resolved."""
        return same_encoder(self.directory.manifest.encoder, searcher.store.spec) and not searcher.store.is_stale()


class IndexEncoder:
    """Whatever encoder the index is of, also after it was switched to another. ``lock``: what guards ``directory``."""

    def __init__(
        self, directory: IndexDirectory, given: Encoder | None, options: EncoderOptions, lock: threading.Lock
    ) -> None:
        self._directory, self._options, self._lock = directory, options, lock
        self._given = [given] if given else []
        self._whole = given
        self._texts = given

    @property
    def spec(self) -> EncoderSpec:
        """The identity of the encoder, of the last committed state."""
        with self._lock:
            self._directory.refresh()
            return self._directory.manifest.encoder

    @property
    def ready(self) -> Encoder | None:
        """The encoder, where it is open already, at least for texts."""
        is_of_index = self._texts is not None and same_encoder(self._texts.spec, self._directory.manifest.encoder)
        return self._texts if is_of_index else None

    def get(self, *, texts_only: bool = False) -> Encoder:
        """The encoder, opened at first need; with ``texts_only`` maybe one whose text encoder alone is ready.

        Raises:
            EncoderMismatch: the index was switched to one that cannot be opened.
            EncoderError: it cannot be opened.
        """
        with self._lock:
            self._directory.refresh()
            ready = self._texts if texts_only else self._whole
            if ready is None or not same_encoder(ready.spec, self._directory.manifest.encoder):
                ready = self._open(ready, texts_only=texts_only)
                self._texts = ready
                if not texts_only:
                    self._whole = ready
            return ready

    def give(self, encoder: Encoder) -> None:
        """Makes known an encoder that the index will have: other threads need it from the moment of the switch on."""
        with self._lock:
            self._given = [*(other for other in self._given if not same_encoder(other.spec, encoder.spec)), encoder]

    def _open(self, held: Encoder | None, *, texts_only: bool) -> Encoder:
        """``held``: the encoder of the index until now."""
        directory = self._directory
        for given in self._given:
            if same_encoder(given.spec, directory.manifest.encoder):
                return given
        try:
            encoder = open_encoder(directory.manifest.model, self._options, texts_only=texts_only)
        except EncoderError as error:
            if held is None:
                raise
            raise EncoderMismatch(
                f"the index {directory.path} was switched from {held.spec.describe()} to "
                f"{directory.manifest.encoder.describe()}, which cannot be opened here ({error}): open the index "
                "again with encoder=…"
            ) from error
        directory.check_encoder(encoder.spec)
        return encoder


def opened(encoder: str | Encoder, options: EncoderOptions) -> Encoder:
    """An encoder as it was given, or opened by its name."""
    if not isinstance(encoder, (str, Encoder)):
        raise UsageError(f"an encoder is a name or an Encoder, got {type(encoder).__name__}")
    return encoder if isinstance(encoder, Encoder) else open_encoder(encoder, options)


def name_to_open(given: str | Encoder | None, encoder: Encoder) -> str:
    """What opens ``encoder`` again: of one in a directory that is its path, whatever it calls itself."""
    return canonical_name(given) if isinstance(given, str) else encoder.spec.name

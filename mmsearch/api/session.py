"""What an open index keeps between calls: its encoder, its searcher and rerankers, each opened at first need."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmsearch.core.errors import EncoderError, EncoderMismatch, UsageError
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.base import Encoder, EncoderOptions
from mmsearch.models.encoders.registry import canonical_name
from mmsearch.store.base import Store, check_encoder, same_encoder
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.registry import family_of, local_path

if TYPE_CHECKING:
    from mmsearch.models.rerankers.base import Reranker
    from mmsearch.models.sounds.base import SoundEncoder
    from mmsearch.query import Searcher
    from mmsearch.query.sounds import SoundSearch
    from mmsearch.store.local.catalogue import Space

Result = TypeVar("Result")


class Live:
    """What an open index reads: a store, as it is committed now."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.place = store.place

    def refresh(self) -> None:
        """Looks what is committed now, for the properties below."""
        self._store.refresh()

    @property
    def model(self) -> str:
        """The name that opens the encoder."""
        return str(self._store.metadata["name"])

    @property
    def spec(self) -> EncoderSpec:
        """The encoder whose vectors are searched."""
        return self._store.spec

    def version(self) -> Hashable:
        """What searches give as long as it stays the same."""
        return self._store.version

    def numbering(self) -> Hashable:
        """What ids mean as long as it stays the same."""
        return self._store.version

    def store(self) -> Store:
        """The last committed version."""
        return self._store.reader()

    def close(self) -> None:
        """Lets go of it."""
        self._store.close()


class LiveDirectory(Live):
    """An index directory, which need not be opened as a store for what asks it of its manifest alone."""

    def __init__(self, directory: IndexDirectory) -> None:
        self.directory = directory
        self.place = str(directory.path)

    def refresh(self) -> None:
        """See `Live.refresh`."""
        self.directory.refresh()

    @property
    def model(self) -> str:
        """See `Live.model`."""
        return self.directory.manifest.model

    @property
    def spec(self) -> EncoderSpec:
        """See `Live.spec`."""
        return self.directory.manifest.encoder

    def version(self) -> Hashable:
        """See `Live.version`."""
        from mmsearch.store.local.catalogue.matching import revision

        return (self.directory.state(), revision(self.directory.catalogue))

    def numbering(self) -> Hashable:
        """See `Live.numbering`: a compaction gives the rows another file."""
        return self.directory.space().file

    def store(self, space: Space | None = None) -> Store:
        """The last committed version, of a space or of the one that is searched."""
        from mmsearch.store.local.store import LocalStore

        return LocalStore(self.directory, space)

    def close(self) -> None:
        """See `Live.close`."""
        self.directory.close()


def live_at(address: str | os.PathLike[str]) -> Live | None:
    """What there is at an address, if there is something.

    Raises:
        UsageError: nobody knows its scheme.
        IndexTooNew, IndexDamaged: with what to do.
    """
    path = local_path(address)
    if path is not None:
        return LiveDirectory(IndexDirectory.open(path)) if IndexDirectory.exists(path) else None
    family, text = family_of(address), os.fspath(address)
    return Live(family.open(text)) if family.exists(text) else None


def make_live(address: str | os.PathLike[str], name: str, spec: EncoderSpec) -> Live:
    """Makes an empty index at an address, for an encoder that ``name`` opens.

    Raises:
        UsageError: it cannot be made there.
    """
    path = local_path(address)
    if path is None:
        return Live(family_of(address).create(os.fspath(address), name, spec))
    IndexDirectory.create(path, name, spec)
    return LiveDirectory(IndexDirectory.open(path))


class Session:
    """The parts that searches of an index share, of its last committed state. Any number of threads may use it."""

    def __init__(self, live: Live, encoder: Encoder | None, options: EncoderOptions) -> None:
        self._live, self.options = live, options
        self.place = live.place
        self._is_closed = False
        self._lock = threading.Lock()
        self.encoder = IndexEncoder(live, encoder, options, self._lock)
        self._searcher: tuple[Any, Searcher] | None = None
        self._rerankers: dict[str, Reranker] = {}
        self._sound_encoders: dict[str, SoundEncoder] = {}
        self._opening_sounds = threading.Lock()
        self._sounds: SoundSearch | None = None

    @property
    def live(self) -> Live:
        """What is read.

        Raises:
            UsageError: the index was closed.
        """
        if self._is_closed:
            raise UsageError(f"the index {self.place} was closed: open it again")
        return self._live

    @property
    def is_directory(self) -> bool:
        """Whether the index is a directory, not another store."""
        return isinstance(self.live, LiveDirectory)

    @property
    def directory(self) -> IndexDirectory:
        """The open index directory.

        Raises:
            UsageError: the index was closed, or is another store.
        """
        if not isinstance(self.live, LiveDirectory):
            raise self._no_directory()
        return self.live.directory

    @property
    def path(self) -> Path:
        """The index directory, also of one that was closed.

        Raises:
            UsageError: the index is another store.
        """
        if not isinstance(self._live, LiveDirectory):
            raise self._no_directory()
        return self._live.directory.path

    def _no_directory(self) -> UsageError:
        return UsageError(
            f"{self.place} is no index directory, which this needs: a store of another kind can be searched, "
            "explained, evaluated, and filled with embeddings"
        )

    def run(
        self, task: Callable[[Encoder | None, Searcher], Result], encoder: Callable[[], Encoder] | None = None
    ) -> Result:
        """The result of ``task`` for the encoder and the current searcher, which are always of one model.

        Run again when the index was switched to another model, or a compaction renumbered the rows, meanwhile: the
        rows may be other ones then, or their file may be gone.
        """
        while True:
            before = self._numbering()
            try:
                opened = None if encoder is None else encoder()
                searcher = self.searcher()
                if opened is not None and not same_encoder(opened.spec, searcher.store.spec):
                    continue
                result = task(opened, searcher)
            except Exception:
                if self._numbering() == before:
                    raise
                continue
            if self._is_current(searcher):
                return result

    def searcher(self) -> Searcher:
        """A searcher of the last committed state; reopened when another thread or process has committed."""
        from mmsearch.query import Searcher
        from mmsearch.query.calibrate.calibration import LAZY, refresh_calibration
        from mmsearch.query.sounds import SoundSearch

        with self._lock:
            self._sounds = self._sounds or SoundSearch(self.sound_encoder)
            state, ready = self.live.version(), self.encoder.ready
            if self._searcher is None or self._searcher[0] != state:
                store = self.store()
                calibration = None if ready is None else refresh_calibration(store, ready, LAZY)
                self._searcher = (state, Searcher(store, calibration, self._sounds))
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

    def sound_encoder(self, name: str) -> SoundEncoder:
        """An encoder of sounds by its name, opened at first need."""
        from mmsearch.models.sounds import open_sound_encoder

        with self._opening_sounds:
            if name not in self._sound_encoders:
                self._sound_encoders[name] = open_sound_encoder(name, self.options)
            return self._sound_encoders[name]

    def refresh_calibration(self, encoder: Encoder) -> None:
        """Works out what is known of the scores of the index, as far as that is out of date."""
        from mmsearch.query.calibrate.calibration import refresh_calibration

        refresh_calibration(self.store(), encoder)

    def store(self, space: Space | None = None) -> Store:
        """The last committed state as a store, of a space of an index directory or of the one that is searched."""
        return self.live.store() if space is None else LiveDirectory(self.directory).store(space)

    def close(self) -> None:
        """Closes the index."""
        self._searcher, self._is_closed = None, True
        self._live.close()

    def _numbering(self) -> Hashable:
        """What the ids mean now."""
        with self._lock:
            self.live.refresh()
            return self.live.numbering()

    def _is_current(self, searcher: Searcher) -> bool:
        """Whether the searcher's encoder is the index's as far as this object knows, and its ids can be resolved."""
        return same_encoder(self.live.spec, searcher.store.spec) and not searcher.store.is_stale()


class IndexEncoder:
    """Whatever encoder the index is of, also after it was switched to another. ``lock``: what guards ``live``."""

    def __init__(self, live: Live, given: Encoder | None, options: EncoderOptions, lock: threading.Lock) -> None:
        self._live, self._options, self._lock = live, options, lock
        self._given = [given] if given else []
        self._whole = given
        self._texts = given

    @property
    def spec(self) -> EncoderSpec:
        """The identity of the encoder, of the last committed state."""
        with self._lock:
            self._live.refresh()
            return self._live.spec

    @property
    def ready(self) -> Encoder | None:
        """The encoder, where it is open already, at least for texts."""
        is_of_index = self._texts is not None and same_encoder(self._texts.spec, self._live.spec)
        return self._texts if is_of_index else None

    def get(self, *, texts_only: bool = False, refresh: bool = True) -> Encoder:
        """The encoder, opened at first need; with ``texts_only`` maybe one whose text encoder alone is ready. Without
        ``refresh``, of the state that was looked at last: to look is a request where the index is a server's.

        Raises:
            EncoderMismatch: the index was switched to one that cannot be opened.
            EncoderError: it cannot be opened.
        """
        with self._lock:
            if refresh:
                self._live.refresh()
            ready = self._texts if texts_only else self._whole
            if ready is None or not same_encoder(ready.spec, self._live.spec):
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
        live = self._live
        for given in self._given:
            if same_encoder(given.spec, live.spec):
                return given
        try:
            encoder = open_encoder(live.model, self._options, texts_only=texts_only)
        except EncoderError as error:
            if held is None:
                raise
            raise EncoderMismatch(
                f"the index {live.place} was switched from {held.spec.describe()} to "
                f"{live.spec.describe()}, which cannot be opened here ({error}): open the index "
                "again with encoder=…"
            ) from error
        check_encoder(live.place, live.spec, encoder.spec)
        return encoder


def opened(encoder: str | Encoder, options: EncoderOptions) -> Encoder:
    """An encoder as it was given, or opened by its name."""
    if not isinstance(encoder, (str, Encoder)):
        raise UsageError(f"an encoder is a name or an Encoder, got {type(encoder).__name__}")
    return encoder if isinstance(encoder, Encoder) else open_encoder(encoder, options)


def name_to_open(given: str | Encoder | None, encoder: Encoder) -> str:
    """What opens ``encoder`` again: of one in a directory that is its path, whatever it calls itself."""
    return canonical_name(given) if isinstance(given, str) else encoder.spec.name

"""The encoder of an open index: one that was given, else opened by its name when it is needed."""

from __future__ import annotations

import threading

from mmsearch.core.errors import EncoderError, EncoderMismatch
from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.base import Encoder, EncoderOptions
from mmsearch.models.encoders.registry import canonical_name
from mmsearch.store.local.directory import IndexDirectory, same_encoder


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
    def ready(self) -> Encoder | None:
        """One that is open and is the index's now, at least for texts."""
        is_of_index = self._texts is not None and same_encoder(self._texts.spec, self._directory.manifest.encoder)
        return self._texts if is_of_index else None

    def get(self, *, texts_only: bool) -> Encoder:
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
        """One that the index will be of: other threads need it from the moment of the switch on."""
        with self._lock:
            self._given = [*(one for one in self._given if not same_encoder(one.spec, encoder.spec)), encoder]

    def _open(self, held: Encoder | None, *, texts_only: bool) -> Encoder:
        """``held``: the one that answered before."""
        directory = self._directory
        for given in self._given:
            if same_encoder(given.spec, directory.manifest.encoder):
                return given
        try:
            found = open_encoder(directory.manifest.model, self._options, texts_only=texts_only)
        except EncoderError as error:
            if held is None:
                raise
            raise EncoderMismatch(
                f"the index {directory.path} was switched from {held.spec.describe()} to "
                f"{directory.manifest.encoder.describe()}, which cannot be opened here ({error}): open the index "
                "again with encoder=…"
            ) from error
        directory.check_encoder(found.spec)
        return found


def opened(encoder: str | Encoder, options: EncoderOptions) -> Encoder:
    """An encoder as it was given, or opened by its name."""
    return encoder if isinstance(encoder, Encoder) else open_encoder(encoder, options)


def name_to_open(encoder: str | Encoder | None, found: Encoder) -> str:
    """What opens the encoder again: of one in a directory that is its path, whatever it calls itself."""
    return canonical_name(encoder) if isinstance(encoder, str) else found.spec.name

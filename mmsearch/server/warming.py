"""What the page shows first, made before somebody asks for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmsearch.core.errors import MmsearchError

if TYPE_CHECKING:
    from mmsearch.api.browsing import Browsing

EVERY_S = 5.0
"""How often it is looked whether the index has changed."""
SHARE = 20
"""At least so many times as long as a look took it is waited for the next: an index that is being filled changes all
the time, and what is made of it then should take little of the machine."""
_LOG = logging.getLogger("mmsearch")


@contextmanager
def lists_ready(browse: Browsing, every_s: float = EVERY_S) -> Iterator[None]:
    """Keeps the lists of the whole library ready, in a thread, as long as the block lasts: of 100,000 documents the
    first call of each takes some tenths of a second after every change of the index.
    """
    ends = threading.Event()
    thread = threading.Thread(target=_keep_ready, args=(browse, every_s, ends), name="mmsearch-lists", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _keep_ready(browse: Browsing, every_s: float, ends: threading.Event) -> None:
    ready: Hashable = None
    while not ends.is_set():
        started = time.monotonic()
        try:
            version = browse.version
            if version != ready:
                browse.prepare()
                ready = version
        except MmsearchError as error:  # whoever asks for a list is told as well
            _LOG.debug("lists are not made ahead: %s", error)
        ends.wait(max(every_s, SHARE * (time.monotonic() - started)))

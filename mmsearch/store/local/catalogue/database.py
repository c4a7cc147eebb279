"""The connection to the SQLite file: one a thread, WAL, transactions that roll back."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.core.errors import IndexDamaged, IndexMissing, ResourceShortage
from mmsearch.core.letters import letters_of, tokens_of
from mmsearch.store.local.catalogue.closing import Closed
from mmsearch.store.local.migrations import check_version, is_old, migrate
from mmsearch.store.local.shortage import shortage_in_catalogue

if TYPE_CHECKING:
    import sqlite_utils


_PATIENCE_MS = 1000
"""How long a writer that closes waits for readers."""
CACHE_KB = 32 << 10
"""Of pages that a connection keeps, at most. With SQLite's 2 MB, looking up a thousand scattered rows of 100,000 takes
twice as long."""


class CatalogueDatabase:
    """An SQLite file with the schema of this mmsearch."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self.closed = Closed.read(path) if read_only else Closed.take(path)
        """The file as its last writer left it; ``None`` after a crash, and from an older mmsearch."""
        self._file = _identity(path)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self.is_old = False
        """Whether an older mmsearch made it: open it once for writing to bring it up to date."""
        if read_only:
            schema = self._scalar("PRAGMA user_version")
            check_version(schema)
            self.is_old = is_old(schema)
        else:
            before = self._scalar("PRAGMA user_version")
            migrate(self.db)
            if before != self._scalar("PRAGMA user_version"):
                self.closed = None

    @property
    def sql(self) -> sqlite3.Connection:
        """The calling thread's connection."""
        if not hasattr(self._local, "connection"):
            self._local.connection = self._connect()
        connection: sqlite3.Connection = self._local.connection
        return connection

    @property
    def db(self) -> sqlite_utils.Database:
        """The same connection with sqlite-utils around it, for writing.

        Imported here because sqlite-utils imports pandas where that is installed, which would double the time
        of a query.
        """
        import sqlite_utils

        return sqlite_utils.Database(self.sql, execute_plugins=False)

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = self._open_connection()
            connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")
            connection.execute("SELECT count(*) FROM sqlite_master")
            register_words(connection)
        except sqlite3.DatabaseError as error:
            if (what := shortage_in_catalogue(error)) is not None:
                raise ResourceShortage(
                    f"the catalogue {self.path} cannot be opened: {what}; put that right and try again"
                ) from error
            raise IndexDamaged(
                f"the catalogue {self.path} cannot be opened ({error}): restore the index from a copy, "
                "or remove it and index again"
            ) from error
        with self._guard:
            self._connections.append(connection)
        return connection

    def _open_connection(self) -> sqlite3.Connection:
        if self.read_only:
            # A medium that nobody can write to needs no locks, and WAL could not create its shared memory there.
            mode = "mode=ro" if os.access(self.path.parent, os.W_OK) else "immutable=1"
            uri = f"{self.path.absolute().as_uri()}?{mode}"
            return sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # the commit point must survive a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def close(self) -> None:
        """Closes the connections of all threads.

        A writer first moves what it wrote from the log into the file and empties the log: who copies the file alone, or
        reads it where nothing can be written (which leaves the log aside), has it all then. See
        `mmsearch.store.local.catalogue.closing` for what it leaves beside it. While a reader is in the middle of
        something the log stays, and the next writer does all this.
        """
        with self._guard:
            closed = None if self.read_only or not self._connections else self._complete()
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        if closed is not None:
            closed.leave(self.path)

    def _complete(self) -> Closed | None:
        """Empties the log; what may be said of the file then."""
        try:
            is_changed = any(connection.total_changes for connection in self._connections)
            self._connections[0].execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
            is_busy = self._connections[0].execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if is_busy:
                return None
            return self.closed if self.closed is not None and not is_changed else Closed.of(self.path)
        except (sqlite3.Error, OSError):
            return None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: what the block writes is committed at its end, or not at all."""
        with self.db.atomic():
            yield

    def check_is_in_place(self) -> None:
        """Refuses to go on with a file that was taken away: connections would read it for as long as they live.

        Raises:
            IndexMissing: it is gone, or another one lies in its place.
        """
        if self._file is None:
            self._file = _identity(self.path)
        if self._file is None or self._file != _identity(self.path):
            raise IndexMissing(
                f"the index {self.path.parent} was removed, moved or replaced while it was open: open it again, or "
                "start the program again"
            )

    def _scalar(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        row = self.sql.execute(sql, parameters).fetchone()
        return None if row is None else row[0]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def register_words(connection: sqlite3.Connection) -> None:
    """Teaches a connection the functions by which the triggers of the full text write words: see `m013_plain_words`."""
    for name, function in (("mmsearch_tokens", _tokens), ("mmsearch_letters", _letters)):
        connection.create_function(name, 1, function, deterministic=True)


@lru_cache(maxsize=64)
def _tokens(text: str | None) -> str | None:
    """`tokens_of` a text between spaces, as the full text holds it. A root's name comes with each of its documents."""
    return None if text is None else " ".join(tokens_of(text))


def _letters(text: str) -> str:
    """`letters_of` each line of a text."""
    return "\n".join(map(letters_of, text.splitlines()))

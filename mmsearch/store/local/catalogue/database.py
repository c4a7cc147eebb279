"""The connection to the SQLite file: one a thread, WAL, transactions that roll back."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.core.errors import IndexDamaged
from mmsearch.store.local.migrations import check_version, is_old, migrate

if TYPE_CHECKING:
    import sqlite_utils


CACHE_KB = 32 << 10
"""Of pages that a connection keeps, at most. With SQLite's 2 MB, looking up a thousand scattered rows of 100,000 takes
twice as long."""


class CatalogueDatabase:
    """An SQLite file with the schema of this mmsearch."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
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
            migrate(self.db)

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
        except sqlite3.DatabaseError as error:
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

        A writer first moves what it wrote from the log into the file: who copies the file alone, or reads it where
        nothing can be written (which leaves the log aside), has it all then.
        """
        with self._guard:
            if self._connections and not self.read_only:
                with contextlib.suppress(sqlite3.OperationalError):  # a reader is in the way: next time
                    self._connections[0].execute("PRAGMA wal_checkpoint(PASSIVE)")
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: what the block writes is committed at its end, or not at all."""
        with self.db.atomic():
            yield

    def _scalar(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        row = self.sql.execute(sql, parameters).fetchone()
        return None if row is None else row[0]

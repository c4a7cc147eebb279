"""What a user asked to have indexed, and which archives have been read whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmsearch.store.local.catalogue.database import CatalogueDatabase
from mmsearch.store.local.catalogue.rows import KeptScope


class ScopeTables(CatalogueDatabase):
    """The tables ``scopes`` and ``archives``."""

    def keep_scope(self, root_id: int, below: str, options: Mapping[str, Any]) -> None:
        """Remembers that a part of a root is to be kept up to date, and with which options.

        A part inside one that is already kept is covered by it; one that is kept inside the new part is absorbed.
        """
        kept = [scope.below for scope in self.kept_scopes() if scope.root_id == root_id]
        if any(_covers(outer, below) and outer != below for outer in kept):
            return
        inner = [(root_id, other) for other in kept if _covers(below, other)]
        self.sql.executemany("DELETE FROM scopes WHERE root_id = ? AND below = ?", inner)
        self.sql.execute("INSERT INTO scopes VALUES (?, ?, ?)", [root_id, below, json.dumps(dict(options))])

    def kept_scopes(self) -> list[KeptScope]:
        """All parts to be kept up to date, by root and path."""
        rows = self.sql.execute("SELECT root_id, below, options FROM scopes ORDER BY root_id, below")
        return [KeptScope(root_id, below, json.loads(options)) for root_id, below, options in rows]

    def absorb_scopes(self, inner: int, outer: int, prefix: str) -> None:
        """Moves what is kept of root ``inner`` to root ``outer``, where it lies below ``prefix``."""
        for scope in [scope for scope in self.kept_scopes() if scope.root_id == inner]:
            self.keep_scope(outer, f"{prefix}/{scope.below}" if scope.below else prefix, scope.options)

    def drop_scopes(self, root_id: int, below: str) -> None:
        """Forgets parts at or below a path: they have been removed from the index."""
        inner = [(scope.root_id, scope.below) for scope in self.kept_scopes() if _covers(below, scope.below)]
        self.sql.executemany(
            "DELETE FROM scopes WHERE root_id = ? AND below = ?", [pair for pair in inner if pair[0] == root_id]
        )

    def archives_below(self, root_id: int) -> dict[str, tuple[int, int, str]]:
        """Path → (size, mtime_ns, decoding) of the archives of a root whose samples are all accounted for."""
        rows = self.sql.execute("SELECT path, size, mtime_ns, decoding FROM archives WHERE root_id = ?", [root_id])
        return {path: (size, mtime_ns, decoding) for path, size, mtime_ns, decoding in rows}

    def put_archive(self, root_id: int, path: str, size: int, mtime_ns: int, decoding: str) -> None:
        """All samples of an archive are accounted for."""
        self.sql.execute(
            "INSERT OR REPLACE INTO archives VALUES (?, ?, ?, ?, ?)", [root_id, path, size, mtime_ns, decoding]
        )

    def drop_archive(self, root_id: int, path: str) -> None:
        """Forgets an archive that is gone, or has to be read again."""
        self.sql.execute("DELETE FROM archives WHERE root_id = ? AND path = ?", [root_id, path])

    def drop_archives(self, root_id: int, below: str) -> None:
        """Forgets archives at or below a path."""
        for path in [path for path in self.archives_below(root_id) if _covers(below, path)]:
            self.drop_archive(root_id, path)


def _covers(outer: str, inner: str) -> bool:
    return outer in ("", inner) or inner.startswith(outer + "/")

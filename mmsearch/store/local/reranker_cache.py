"""The reranker cache: the image tokens that an index keeps for one reranker, so that a query opens no pictures.

They are committed like vectors (`mmsearch.store.local.commit`). Unlike vectors they are a cache: what is missing is
made again from the pictures, or done without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmsearch.core.errors import IndexDamaged
from mmsearch.models.rerankers.base import RerankerSpec, TokenArray
from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.catalogue.reranker_cache import (
    TokenTable,
    add_token_table,
    drop_token_table,
    places_of_rows,
    token_counts,
    token_table,
)
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.files.tokens import TokenFile


def claim(index: IndexDirectory, name: str, spec: RerankerSpec) -> TokenTable:
    """The cache of a reranker, which ``name`` opens again; that of another one is dropped for it.

    ``index`` must be open for writing.
    """
    table = token_table(index.catalogue)
    if table is not None and table.digest == spec.digest:
        return table
    drop_tokens(index)
    with index.catalogue.transaction():
        return add_token_table(index.catalogue, name, spec.digest, spec.token_shape)


def drop_tokens(index: IndexDirectory) -> int:
    """Drops the reranker cache; returns how many bytes that gives back. ``index`` must be open for writing."""
    table = token_table(index.catalogue)
    if table is None:
        return 0
    file = TokenFile(index.path / table.file, table.shape)
    size = file.bytes_on_disk()
    with index.catalogue.transaction():
        drop_token_table(index.catalogue, table)
    file.path.unlink(missing_ok=True)
    return size


@dataclass(frozen=True, eq=False)
class TokensAtHand:
    """Those of some rows of the vector file: ``place`` is where a row's lie; `read` reads some places."""

    place: dict[int, int]
    file: TokenFile | None = None
    row_count: int = 0

    def read(self, places: Sequence[int]) -> TokenArray:
        """(n, *token_shape) float16."""
        assert self.file is not None
        return self.file.read(places, self.row_count)


def tokens_at_hand(index: IndexDirectory, space: Space, spec: RerankerSpec, rows: Sequence[int]) -> TokensAtHand:
    """The cached tokens of some rows; none where the cache is another reranker's, or the file is gone or too short."""
    table, place = places_of_rows(index.catalogue, spec.digest, space.id, rows)
    if table is None or table.shape != spec.token_shape:
        return TokensAtHand({})
    file = TokenFile(index.path / table.file, table.shape)
    try:
        file.read([], table.row_count)
    except (IndexDamaged, OSError):  # a compaction took it away just now, or it was cut by hand
        return TokensAtHand({})
    return TokensAtHand(place, file, table.row_count)


def describe_tokens(index: IndexDirectory, space: Space) -> dict[str, Any] | None:
    """What `status` shows; ``None`` where none are kept."""
    table = token_table(index.catalogue)
    if table is None:
        return None
    file = TokenFile(index.path / table.file, table.shape)
    kept, pictures = token_counts(index.catalogue, table, space.id)
    return {
        "reranker": table.reranker,
        "images": kept,
        "of": pictures,
        "bytes": file.bytes_on_disk(),
        "bytes_per_image": file.bytes_per_image,
    }

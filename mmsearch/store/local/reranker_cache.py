"""The image tokens that an index keeps for a reranker: opened, added to, read, and compacted.

They follow the same discipline as vectors: appended and synced first, then named by a transaction of the catalogue;
what a crash leaves behind the committed rows is cut. Unlike vectors they are a cache: what is missing is made again
from the pictures, or done without.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import IndexDamaged
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.models.rerankers.base import Reranker, RerankerSpec, TokenArray
from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.catalogue.reranker_cache import (
    TokenTable,
    add_token_table,
    drop_token_table,
    live_places,
    places_of_rows,
    put_tokens,
    renumber_tokens,
    set_token_count,
    token_counts,
    token_table,
)
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.files.tokens import TokenFile


class TokenKeeper:
    """Keeps the tokens of one reranker with an index that is open for writing."""

    def __init__(self, index: IndexDirectory, name: str, reranker: Reranker) -> None:
        """``name`` opens the reranker again; tokens of another one are dropped."""
        self.index, self.reranker = index, reranker
        found = token_table(index.catalogue)
        if found is None or found.digest != reranker.spec.digest:
            drop_tokens(index)
            with index.catalogue.transaction():
                found = add_token_table(index.catalogue, name, reranker.spec.digest, reranker.spec.token_shape)
        self._table = found

    def shares_inputs(self, encoder: Encoder) -> bool:
        """Whether what the encoder prepares of a picture is all that the reranker needs."""
        return getattr(self.reranker, "encoder", None) is encoder

    def encode(self, inputs: npt.NDArray[Any]) -> tuple[FloatArray, TokenArray]:
        """Vectors and tokens of prepared pictures, from one run of the space that both share."""
        shared: Any = self.reranker
        vectors, grid = shared.encoder.vectors_and_grids(inputs)
        return vectors, shared.tokens_of_grid(grid)

    def append(self, tokens: Sequence[TokenArray]) -> int:
        """Writes tokens behind the committed ones, each of one image; returns the place of the first."""
        table = self.table
        if tokens:
            TokenFile(self.index.path / table.file, table.shape).append(np.stack(tokens), at=table.row_count)
        return table.row_count

    def record(self, space: Space, first: int, rows: Sequence[int]) -> None:
        """Inside a transaction: ``rows`` of the vector file have their tokens at ``first`` and the places after it."""
        put_tokens(self.index.catalogue, self._table, space.id, zip(range(first, first + len(rows)), rows, strict=True))
        set_token_count(self.index.catalogue, self._table, first + len(rows))

    @property
    def table(self) -> TokenTable:
        """What is committed now."""
        found = token_table(self.index.catalogue)
        return self._table if found is None else found


def drop_tokens(index: IndexDirectory) -> int:
    """Keeps no tokens any more; returns how many bytes that gives back. ``index`` must be open for writing."""
    table = token_table(index.catalogue)
    if table is None:
        return 0
    file = TokenFile(index.path / table.file, table.shape)
    size = file.bytes_on_disk()
    with index.catalogue.transaction():
        drop_token_table(index.catalogue, table)
    file.path.unlink(missing_ok=True)
    return size


def compact_tokens(index: IndexDirectory) -> int:
    """Rewrites the token file without the rows that no segment owns any more; returns how many those were.

    ``index`` must be open for writing. The new file stands beside the old one until the catalogue names it.
    """
    table = token_table(index.catalogue)
    if table is None:
        return 0
    alive = live_places(index.catalogue, table)
    if len(alive) == table.row_count:
        return 0
    old = TokenFile(index.path / table.file, table.shape)
    stem, number = re.fullmatch(r"(.*)-(\d+)\.i8", table.file).groups()  # type: ignore[union-attr]
    fresh = TokenFile(index.path / f"{stem}-{int(number) + 1}.i8", table.shape)
    fresh.path.unlink(missing_ok=True)
    old.copy_to(fresh, alive, table.row_count)
    with index.catalogue.transaction():
        renumber_tokens(index.catalogue, table, alive, fresh.path.name)
    old.path.unlink(missing_ok=True)
    return table.row_count - len(alive)


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
    """The kept tokens of some rows; none where another reranker's are kept, or the file is gone or too short."""
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

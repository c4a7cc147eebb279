"""Makes the image tokens that an index lacks: of what was indexed before they were kept, or by another model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mmsearch.core.errors import EncoderError, MediaError
from mmsearch.media import decoder_for
from mmsearch.media.base import DecodeOptions
from mmsearch.models.encoders.base import Encoder
from mmsearch.models.rerankers import open_reranker
from mmsearch.pipeline.interrupts import interrupts_held
from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.catalogue.reranker_cache import Lacking, contents_lacking_tokens, token_table
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.reranker_cache import TokenKeeper

_COMMIT_IMAGES = 256
_SAME_TIME_S = 0.001
_LOG = logging.getLogger("mmsearch")


def open_keeper(index: IndexDirectory, encoder: Encoder, name: str | None) -> TokenKeeper | None:
    """Who keeps tokens: of the reranker ``name``, else of the one whose tokens the index keeps already.

    Raises:
        EncoderError: there is no reranker ``name``. One that the index knows and cannot be opened now is done without.
    """
    if name is not None:
        return TokenKeeper(index, name, open_reranker(name, encoder=encoder))
    table = token_table(index.catalogue)
    if table is None:
        return None
    try:
        reranker = open_reranker(table.reranker, encoder=encoder)
    except EncoderError as error:
        _LOG.warning("no image tokens are kept of what is new: %s", error)
        return None
    if reranker.spec.digest != table.digest:
        _LOG.warning("no image tokens are kept of what is new: the reranker %s is another one now", table.reranker)
        return None
    return TokenKeeper(index, table.reranker, reranker)


def lacks_tokens(index: IndexDirectory) -> bool:
    """Whether the index keeps tokens and some picture that lies on the disk has none."""
    table = token_table(index.catalogue)
    return table is not None and bool(contents_lacking_tokens(index.catalogue, table, index.space().id))


def fill_tokens(
    keeper: TokenKeeper, space: Space, options: DecodeOptions, progress: Callable[[int, int, str], None]
) -> int:
    """Makes and commits the missing tokens, a few at a time; returns how many images got them.

    Files that cannot be read now, and pictures inside of archives, are left without: a question opens them.
    ``progress`` is told contents done, contents in all, and the path at hand.
    """
    missing = contents_lacking_tokens(keeper.index.catalogue, keeper.table, space.id)
    rows: list[int] = []
    inputs: list[np.ndarray] = []
    tokens: list[np.ndarray] = []
    filled = 0

    def look() -> None:
        if inputs:
            tokens.extend(keeper.reranker.tokens_of_prepared(np.stack(inputs)))
            inputs.clear()

    def commit() -> int:
        look()
        if rows:
            with interrupts_held():
                first = keeper.append(tokens)
                with keeper.index.catalogue.transaction():
                    keeper.record(space, first, rows)
        count = len(rows)
        rows.clear()
        tokens.clear()
        return count

    for done, lacking in enumerate(missing, start=1):
        for row, prepared in _pictures(keeper, lacking, options):
            rows.append(row)
            inputs.append(prepared)
            if len(inputs) >= keeper.reranker.batch_size:
                look()
            if len(rows) >= _COMMIT_IMAGES:
                filled += commit()
        progress(done, len(missing), lacking.path)
    return filled + commit()


def _pictures(keeper: TokenKeeper, lacking: Lacking, options: DecodeOptions) -> Iterator[tuple[int, np.ndarray]]:
    """Rows and prepared pictures of a content; frames are known by their times, pages by their numbers."""
    path = Path(keeper.index.root_path(lacking.root)) / lacking.path
    decoder = decoder_for(path)
    if decoder is None or not path.is_file():
        return
    wanted = list(lacking.segments)
    try:
        for number, segment in enumerate(decoder.decode(path, options).segments):
            for one in wanted:
                row, ordinal, start_s = one
                is_it = ordinal == number if start_s is None else abs((segment.start_s or 0) - start_s) < _SAME_TIME_S
                if is_it and segment.image is not None:
                    yield row, np.asarray(keeper.reranker.prepare_image(segment.image))
                    wanted.remove(one)
                    break
            if not wanted:
                return
    except MediaError:
        return

"""What contents say of themselves (date, place, keywords …), read again where an older version read less of it.

Only headers are opened: no picture is decoded, nothing is encoded. What an older version showed otherwise than it is
shown now is marked, so that the plan of the same run finds it changed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from mmsearch.core.errors import MediaError
from mmsearch.core.shortage import shortage_of
from mmsearch.core.types import MediaInfo
from mmsearch.media import decoder_for
from mmsearch.media.base import DecodeOptions
from mmsearch.pipeline.plan import Scope, archive_of
from mmsearch.store.local.directory import IndexDirectory

PAGE = 256
"""Contents of one commit."""


def describe_again(index: IndexDirectory, scopes: Sequence[Scope], options: DecodeOptions, threads: int) -> bool:
    """Completes the descriptions of the contents in some scopes; returns whether it was interrupted (Ctrl-C), with what
    was read until then saved. Files that are not there, or have changed, wait for a later run.

    ``index`` must be open for writing.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="mmsearch-describe") as pool:
        try:
            for scope in scopes:
                after: int | None = 0
                while after is not None:
                    after = _describe_page(index, scope, options, pool, after)
        except KeyboardInterrupt:
            return True
    return False


def _describe_page(
    index: IndexDirectory, scope: Scope, options: DecodeOptions, pool: ThreadPoolExecutor, after: int
) -> int | None:
    """Some contents of a scope; returns the id of the last of them, ``None`` where there are no more."""
    contents = index.catalogue.undescribed(scope.root.id, scope.below, after, PAGE)

    def read(content: tuple[int, str, int, int]) -> tuple[int, MediaInfo | Literal["again"] | None] | None:
        id_, path, size, mtime_ns = content
        if archive_of(path) is not None:  # looking for each sample in its archive would take too long
            return id_, None
        place, decoder = scope.folder / path, decoder_for(scope.folder / path)
        try:
            status = os.stat(place)  # noqa: PTH116
            if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
                return None
            return id_, None if decoder is None else decoder.describe(place, options)
        except MediaError as error:
            return None if shortage_of(error) is not None else (id_, None)
        except OSError:
            return None

    found = [one for one in pool.map(read, contents) if one is not None]
    with index.catalogue.transaction():
        for id_, info in found:
            if info == "again":
                index.catalogue.mark_outdated(id_)
            else:
                index.catalogue.describe(id_, info)
    return contents[-1][0] if contents else None

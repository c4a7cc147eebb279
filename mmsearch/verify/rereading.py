"""Whether what an index holds could be read again: only then may mending drop it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmsearch.pipeline.plan import archive_of
from mmsearch.store.local.directory import IndexDirectory


def lasting_contents(index: IndexDirectory, contents: Iterable[int]) -> set[int]:
    """Those of some contents that no file on this machine could be read again for: imported ones, those of absent
    documents, those whose files are gone or refuse to be read.
    """
    return {content for content in set(contents) if not _can_be_read(index, content)}


def _can_be_read(index: IndexDirectory, content_id: int) -> bool:
    for _, root, path in index.catalogue.documents_of_content(content_id):
        if root.is_dataset:
            continue
        folder = index.root_path(root)
        if _opens(folder / path) or ((archive := archive_of(path)) and _opens(folder / archive)):
            return True
    return False


def _opens(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return bool(file.read(1))
    except OSError:
        return False

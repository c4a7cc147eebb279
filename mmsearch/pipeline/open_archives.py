"""Archives of which some samples are committed and some are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmsearch.pipeline.plan import Work
from mmsearch.pipeline.reading import ArchiveEnd
from mmsearch.store.local.catalogue import Catalogue


class OpenArchives:
    """Knows when every sample of an archive is accounted for, and records then that it need not be read again.

    A run that is killed before has lost nothing: the samples that it committed are recognised by their hashes.
    """

    def __init__(self, catalogue: Catalogue, limits: str) -> None:
        self._catalogue = catalogue
        self._limits = limits
        self._ends: dict[int, ArchiveEnd] = {}
        self._done: dict[int, set[str]] = {}
        self._next: dict[int, set[str]] = {}
        self._removed = 0

    def take(self, end: ArchiveEnd) -> None:
        """All samples of an archive are known now."""
        self._ends[id(end.work)] = end

    def close(self, written: Iterable[Work]) -> list[ArchiveEnd]:
        """Inside the transaction that writes ``written``: records the archives that are complete with it."""
        done = {key: set(paths) for key, paths in self._done.items()}
        for work in written:
            if work.archive is not None:
                done.setdefault(id(work.archive), set()).add(work.file.path)
        closed = [end for key, end in self._ends.items() if end.paths <= done.get(key, set())]
        self._removed = sum(self._record(end) for end in closed)
        self._next = done
        return closed

    def account(self, closed: Sequence[ArchiveEnd]) -> int:
        """After that transaction, and only then: forgets what is recorded; returns how many documents went."""
        self._done = self._next
        for end in closed:
            del self._ends[id(end.work)]
            self._done.pop(id(end.work), None)
        return self._removed

    def _record(self, end: ArchiveEnd) -> int:
        root_id, file = end.work.scope.root.id, end.work.file
        documents = list(self._catalogue.documents_below(root_id, file.path))
        gone = [(document.id, root_id, document.path) for document in documents if document.path not in end.paths]
        self._catalogue.forget_skipped(root_id, self._catalogue.skipped_below(root_id, file.path).keys() - end.paths)
        if end.problem:
            decoding = end.work.decoding + self._limits
            self._catalogue.put_skipped(root_id, *file[:4], decoding, end.problem)
        self._catalogue.put_archive(root_id, file.path, file.size, file.mtime_ns, end.work.decoding)
        return self._catalogue.remove_documents(gone)

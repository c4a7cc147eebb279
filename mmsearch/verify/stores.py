"""Compares a store that is no index directory with itself and with the folders that it was filled from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mmsearch.core.errors import MediaError
from mmsearch.ingest import IngestOptions
from mmsearch.ingest.stores import folders_of, scopes_of
from mmsearch.media.base import DecodeOptions
from mmsearch.pipeline.into_store import FolderPlan, plan_folder
from mmsearch.pipeline.plan import Scope, Work, is_there
from mmsearch.sources import FileEntry, content_hash
from mmsearch.store.base import DATASET, Store
from mmsearch.verify.differences import Difference, Verdict
from mmsearch.verify.verifying import LENGTH_TOLERANCE

SAMPLE = 2000
"""Vectors that are looked at."""


def verify_store(store: Store, *, read_bytes: bool = False, seen: Callable[[int], None] = lambda _: None) -> Verdict:
    """Compares the files of each folder that was indexed with what the store knows of them, looks whether every
    document has all its segments, and whether a sample of `SAMPLE` vectors can be what an encoder made. With
    ``read_bytes``, all files are read and hashed again.
    """
    store.refresh()
    differences = [Difference("incomplete content", path, problem) for path, problem in store.damaged()]
    ids = store.sample(SAMPLE, sorted(store.modalities))
    lengths = np.linalg.norm(store.vectors(ids), axis=1)
    for segment in store.fetch(ids[~(np.abs(lengths - 1) <= LENGTH_TOLERANCE)].tolist()):
        differences.append(Difference("bad vector", segment.path, "its vector is not of length 1"))
    files = 0
    for place, kept in folders_of(store):
        if not is_there(place):
            documents = sum(1 for _ in store.scan(str(place)))
            detail = f"{documents} documents lie there: mount the disk again, or `mmsearch remove {place}`"
            differences.append(Difference("missing folder", str(place), detail))
            continue
        [scope] = scopes_of(store, [place])
        plan = _plan(store, scope, kept, seen)
        files += plan.unchanged + len(plan.skipped) + len(plan.work)
        differences += _of_folder(plan)
        if read_bytes:
            differences += _bytes(plan)
    return Verdict(store.count(), store.size, files, tuple(differences))


def _plan(store: Store, scope: Scope, kept: dict[str, Any], seen: Callable[[int], None]) -> FolderPlan:
    options = IngestOptions.from_kept(kept)
    decode = DecodeOptions(max_megapixels=options.max_megapixels, frame_interval_s=options.frame_interval_s)
    return plan_folder(store, scope, options.rules, decode, options.limits, seen)


def _of_folder(plan: FolderPlan) -> Iterator[Difference]:
    for work in plan.work:
        known = work.file.path in plan.known
        detail = "it changed, or another version of mmsearch would read it differently" if known else "not indexed yet"
        yield Difference("changed file" if known else "new file", str(work.path), detail)
    for one in plan.gone:
        yield Difference("missing file", str(plan.scope.folder / one.path), "indexed, and no longer there")


def _bytes(plan: FolderPlan) -> Iterator[Difference]:
    changed = {work.file.path for work in plan.work if isinstance(work, Work)}
    for path, known in plan.known.items():
        place = plan.scope.folder / path
        if path in changed or plan.scope.root.path.startswith(DATASET) or not place.is_file():
            continue
        try:
            found = content_hash(place, FileEntry(path, known.size, known.mtime_ns, 0))
        except MediaError as error:
            yield Difference("unreadable file", str(place), f"{error}: make it readable and run again")
            continue
        if found != known.hash:
            yield Difference("changed bytes", str(place), "its bytes are not those that were indexed")

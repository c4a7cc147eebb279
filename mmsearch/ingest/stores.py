"""The `index` line into any store, see `mmsearch.pipeline.into_store`: the same report as of an index directory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmsearch.core.errors import UsageError
from mmsearch.core.types import Progress, Report
from mmsearch.ingest.engine import executor_of
from mmsearch.ingest.options import IngestOptions as IngestOptions
from mmsearch.models.encoders.base import Encoder
from mmsearch.pipeline.executor import Executor
from mmsearch.pipeline.fill import fill
from mmsearch.pipeline.into_store import FOLDER, FolderPlan, Settled, StoreFiles, plan_folder, scope_of, settle
from mmsearch.pipeline.plan import Scope, is_there
from mmsearch.sources import is_remote, located
from mmsearch.store.base import Store, check_encoder


def ingest_into(
    store: Store,
    encoder: Encoder,
    paths: Sequence[Path],
    options: IngestOptions = IngestOptions(),
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    executor: Executor | None = None,
) -> Report:
    """Indexes what is new or changed at ``paths`` into a store, drops what is gone there, and says what it did.

    Moved and copied files reuse their vectors. A run that is interrupted or killed is repeated: what is stored is
    found unchanged. ``executor``: what reads and computes; by default what ``options.engine`` says.

    Raises:
        UsageError: a path does not exist and nothing of it is in the store; or something is asked for that only index
            directories have (text in pictures, speech, a reranker's cache).
        EncoderMismatch: the vectors of the store are of another encoder.
    """
    for name, what in (("ocr", "--ocr"), ("speech", "--speech"), ("keep_tokens", "--keep-tokens")):
        if getattr(options, name):
            raise UsageError(f"{what} is for index directories alone; {store.place} keeps vectors and what files say")
    check_encoder(store.place, store.spec, encoder.spec)
    started = time.perf_counter()
    decode = options.decode_options(encoder)
    plans = [
        plan_folder(
            store, scope, options.rules, decode, options.limits, lambda files: progress(Progress("walk", files, None))
        )
        for scope in scopes_of(store, paths)
    ]
    walked = time.perf_counter() - started
    files = StoreFiles(store, encoder, plans, decode, options.limits)
    running = executor or executor_of(options, lambda: store.metadata["name"], encoder.spec)
    interrupted = fill(files, running, lambda: contextlib.nullcontext(store), progress)
    settled = Settled()
    if not interrupted:
        settled = settle(store, plans, files.moved, forget=options.forget_missing)
        _remember_folders(store, plans, options)
    seconds = {**running.seconds, "walk": walked, "total": time.perf_counter() - started}
    left = [skip for plan in plans for skip in plan.skipped] + files.skipped
    return Report(
        indexed=files.indexed,
        unchanged=files.unchanged + sum(plan.unchanged for plan in plans),
        updated=files.updated,
        removed=settled.removed + files.removed,
        absent=sum(settled.absent.values()),
        absent_at=tuple(sorted(settled.absent)),
        skipped=tuple(sorted(left, key=lambda skip: skip.path)),
        segments=files.segments,
        interrupted=interrupted,
        seconds={stage: round(spent, 3) for stage, spent in seconds.items()},
    )


def scopes_of(store: Store, paths: Sequence[Path]) -> list[Scope]:
    """The parts of roots that paths mean; a path inside of a folder that is indexed is a part of it.

    Raises:
        UsageError: nothing lies there, and nothing of it is in the store.
    """
    roots = [key.partition("\n")[0] for key in store.remembered(FOLDER)]
    found: dict[tuple[str, str], Scope] = {}
    for number, given in enumerate(paths, start=1):
        place = located(given).expanduser()
        here = is_there(place)
        if not is_remote(place):
            place = place.resolve() if here else place.absolute()
        if not here and not any(str(place) == root or str(place).startswith(root + "/") for root in roots):
            raise UsageError(
                f"there is no file or folder {given}, or it lies where you may not look: check the spelling"
            )
        scope = scope_of(place, number, roots)
        roots.append(scope.root.path)
        found[scope.root.path, scope.below] = scope
    outer = {root for root, below in found if not below}
    return [scope for (root, below), scope in found.items() if not below or root not in outer]


def folders_of(store: Store) -> list[tuple[Path, dict[str, Any]]]:
    """The places that were indexed, and with which options (`mmsearch.ingest.IngestOptions.kept`)."""
    pairs = [(*key.partition("\n")[::2], values[0]) for key, values in sorted(store.remembered(FOLDER).items())]
    return [(located(Path(root)) / below, kept) for root, below, kept in pairs]


def _remember_folders(store: Store, plans: Sequence[FolderPlan], options: IngestOptions) -> None:
    for plan in plans:
        store.remember(FOLDER, plan.scope.root.path, {plan.scope.below: [options.kept()]})


def remove_from(store: Store, paths: Sequence[Path]) -> int:
    """Drops the documents at or below ``paths`` from a store (never a file from the disk); returns how many.

    Raises:
        UsageError: nothing of the store lies at any of the paths.
    """
    removed = 0
    for path in paths:
        place = located(path)
        places = dict.fromkeys((str(place), *(() if is_remote(place) else (str(place.expanduser().absolute()),))))
        ids = [one.id for place in places for one in store.scan(place)]
        removed += store.drop(ids) if ids else 0
        for key in store.remembered(FOLDER):
            root, _, below = key.partition("\n")
            named = f"{root}/{below}".rstrip("/")
            if any(named == one or named.startswith(one.rstrip("/") + "/") for one in places):
                store.remember(FOLDER, root, {below: None})
    if not removed:
        shown = ", ".join(str(path) for path in paths)
        raise UsageError(f"nothing in the index lies at {shown}: `mmsearch status` lists the indexed folders")
    return removed

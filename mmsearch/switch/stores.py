"""Changes the encoder of a store that is no index directory: its vectors are filled in beside the present ones, then
one step lets them answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mmsearch.core.types import Progress, Skip
from mmsearch.ingest import IngestOptions
from mmsearch.ingest.stores import folders_of, ingest_into
from mmsearch.models.encoders.base import Encoder
from mmsearch.pipeline.compute import TextVectors
from mmsearch.pipeline.plan import is_there
from mmsearch.store.base import NewDocument, Store, same_encoder
from mmsearch.store.local.catalogue.coverage import Coverage
from mmsearch.switch.options import SwitchOptions as SwitchOptions
from mmsearch.switch.run import SwitchReport

PATIENCE = 3
"""Times that what was indexed meanwhile is filled in before the switch is left to the next call."""


def switch_store(
    store: Store,
    encoder: Encoder,
    options: SwitchOptions = SwitchOptions(),
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    model: str,
    prepare: Callable[[Store], object] = lambda _: None,
) -> SwitchReport:
    """Gives ``encoder`` vectors of all documents in a store beside ``store``, and lets it answer once they are there.

    Files are read again; texts that lie in the store are encoded from there. What has neither a file nor a text (of an
    imported dataset) is left out. Until the switch, and in other processes after it until they look again, queries get
    the hits of the encoder before; never of both. A run that was interrupted or killed goes on when called again.
    """
    started, before = time.perf_counter(), str(store.metadata["name"])
    spec = replace(encoder.spec, name=model)
    answers = same_encoder(store.spec, encoder.spec)
    other = store.beside(spec, model)
    segments, interrupted = 0, False
    left_out: tuple[Skip, ...] = ()
    for _ in range(PATIENCE):
        segments, interrupted, left_out = _fill(store, other, encoder, options, progress, segments)
        if interrupted or answers or not options.activate or (left_out and not options.leave_out):
            break
        store.refresh()
        other.refresh()
        if other.count() + len(left_out) >= store.count():
            prepare(other)
            store.switch(spec, model, partly=bool(left_out))
            answers = True
            break
    documents = store.count()
    return SwitchReport(
        model=model,
        before=before,
        answers=answers,
        coverage=Coverage(documents, min(documents, other.count()), len(left_out)),
        left_out=left_out,
        segments=segments,
        interrupted=interrupted,
        seconds=time.perf_counter() - started,
    )


def _fill(
    store: Store, other: Store, encoder: Encoder, options: SwitchOptions, progress: Callable[[Progress], None],
    segments: int,
) -> tuple[int, bool, tuple[Skip, ...]]:  # fmt: skip
    reasons: dict[str, str] = {}
    for place, kept in folders_of(store):
        own = replace(IngestOptions.from_kept(kept), readers=options.readers, memory_mb=options.memory_mb, ocr=False)
        if not is_there(place):
            continue
        report = ingest_into(other, encoder, [place], own, progress)
        segments += report.segments
        reasons |= {skip.path: skip.reason for skip in report.skipped}
        if report.interrupted:
            return segments, True, ()
    left_out: list[Skip] = []
    there = {one.path for one in other.scan()}
    missing = {one.path for one in store.scan()} - there
    encode = TextVectors(encoder, cut_long=True)
    for part in store.export() if missing else ():
        texts: list[NewDocument] = []
        for one in part.documents:
            if one.place not in missing:
                continue
            if all(segment.text for segment in one.segments):
                texts.append(one)
            else:
                left_out.append(Skip(one.place, reasons.get(one.place, "it is not there to be read again")))
        if texts:
            said = [segment.text for one in texts for segment in one.segments]
            size = encode.batch_size
            rows = [row for at in range(0, len(said), size) for row in encode(said[at : at + size])]
            other.upsert(texts, np.stack([row["vector"] for row in rows]))
            segments += len(rows)
    return segments, False, tuple(left_out)

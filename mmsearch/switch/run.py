"""Changes the encoder that answers, without a moment in which nothing or the wrong thing answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mmsearch.core.system import usable_cores
from mmsearch.core.types import EncoderSpec, Progress, Skip
from mmsearch.ingest import IngestOptions
from mmsearch.models.encoders.base import Encoder
from mmsearch.pipeline.artefacts import VectorsOfContents
from mmsearch.pipeline.executor import ThreadExecutor
from mmsearch.pipeline.fill import fill
from mmsearch.pipeline.plan import archive_of
from mmsearch.pipeline.stored_contents import OptionsOf
from mmsearch.store.base import same_encoder
from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.catalogue.coverage import Coverage, coverage, drop_space, left_out
from mmsearch.store.local.directory import IndexDirectory, switching
from mmsearch.switch.options import SwitchOptions as SwitchOptions


@dataclass(frozen=True)
class SwitchReport:
    """What a run did. ``answers``: whether the encoder named ``model`` answers now; ``before``: which one did before.

    ``segments`` vectors were made. ``left_out`` are documents that could not be read again, and why; until they can
    be, or ``SwitchOptions.leave_out`` is set, the encoder does not answer. ``dropped``: encoders whose space was given
    back.
    """

    model: str
    before: str
    answers: bool
    coverage: Coverage
    left_out: tuple[Skip, ...] = ()
    segments: int = 0
    interrupted: bool = False
    dropped: tuple[str, ...] = ()
    seconds: float = 0.0


def switch(
    index: IndexDirectory,
    encoder: Encoder,
    options: SwitchOptions = SwitchOptions(),
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    model: str | None = None,
    prepare: Callable[[Space], None] = lambda _: None,
) -> SwitchReport:
    """Gives ``encoder`` vectors of everything that is indexed, and lets it answer once they are complete.

    Until then the encoder that answers goes on, also for other processes, which may index and remove meanwhile. A run
    that was interrupted or killed goes on where it was when called again. The vectors of the encoder that answered
    before stay, so switching back only fills in what came since. ``model`` is the name that opens the encoder again (by
    default what it calls itself). ``prepare`` is called with the complete space before it answers.

    Raises:
        IndexBusy: another process does the same.
    """
    started = time.perf_counter()
    with switching(index):
        index.refresh()
        before = index.manifest.model
        spec = replace(encoder.spec, name=model or encoder.spec.name)
        space = _registered(index, spec)
        vectors = VectorsOfContents(index, encoder, space, _options_for(encoder))
        executor = ThreadExecutor(options.readers or usable_cores(), options.memory_mb)
        answers = same_encoder(index.manifest.encoder, encoder.spec)
        while not (interrupted := fill(vectors, executor, lambda: index.writing(wait_s=-1), progress)):
            counts = coverage(index.catalogue, space.id)
            if counts.waiting == 0:
                if answers or not options.activate or (counts.left_out and not options.leave_out):
                    break
                prepare(_registered(index, spec))
                if answers := _activate(index, encoder.spec, spec.name, options):
                    break
            vectors.retry = False  # only what was indexed meanwhile
        index.refresh()
        dropped = _drop_others(index) if options.drop_others and answers and not interrupted else ()
        return SwitchReport(
            model=spec.name,
            before=before,
            answers=answers,
            coverage=coverage(index.catalogue, space.id),
            left_out=documents_left_out(index, space),
            segments=vectors.segments,
            interrupted=interrupted,
            dropped=dropped,
            seconds=time.perf_counter() - started,
        )


def documents_left_out(index: IndexDirectory, space: Space) -> tuple[Skip, ...]:
    """The documents that a space could not be given vectors of, and why."""
    return tuple(
        Skip(path if root.is_dataset else str(index.root_path(root) / path), reason)
        for root, path, reason in left_out(index.catalogue, space.id)
    )


def _options_for(encoder: Encoder) -> OptionsOf:
    """Files are read as when they were indexed, but for this encoder."""
    return lambda kept: IngestOptions.from_kept(kept).decode_options(encoder)


def _registered(index: IndexDirectory, spec: EncoderSpec) -> Space:
    found = index.space_of(spec)
    if found is not None:
        return found
    with index.writing(wait_s=-1) as writable, writable.catalogue.transaction():
        taken = {space.file for space in writable.catalogue.spaces()}
        names = (f"vectors-{spec.key}{end}.f16" for end in ("", *(f"-{number}" for number in range(1, len(taken) + 2))))
        return writable.catalogue.add_space(spec, next(name for name in names if name not in taken))


def _activate(index: IndexDirectory, spec: EncoderSpec, model: str, options: SwitchOptions) -> bool:
    """Lets an encoder answer, in one atomic step; ``False`` when it lacks what was indexed meanwhile."""
    with index.writing(wait_s=-1) as writable:
        space = writable.space_of(spec)
        assert space is not None
        counts = coverage(writable.catalogue, space.id)
        if counts.waiting or (counts.left_out and not options.leave_out):
            return False
        _look_again(writable, space)
        with writable.catalogue.transaction():  # whoever wants the other one back must know its name
            writable.catalogue.rename_space(writable.space(), writable.manifest.model)
        # What was built for faster search knows the vectors of the other encoder.
        writable.with_manifest(model=model, encoder=spec, recipe="exact", vector_index=None)
        for file in writable.path.glob("vector-index-*"):
            file.unlink(missing_ok=True)
    return True


def _look_again(index: IndexDirectory, space: Space) -> None:
    """Lets the next `mmsearch index` read what was left out, whatever the disk says of its time."""
    with index.catalogue.transaction():
        for root, path, _ in left_out(index.catalogue, space.id):
            if not root.is_dataset:
                index.catalogue.forget_times(root.id, [path])
                index.catalogue.drop_archive(root.id, archive_of(path) or path)


def _drop_others(index: IndexDirectory) -> tuple[str, ...]:
    """Gives back the space of all encoders but the one that answers; returns their names."""
    with index.writing(wait_s=-1) as writable:
        answering = writable.space()
        others = [space for space in writable.catalogue.spaces() if space.id != answering.id]
        with writable.catalogue.transaction():
            for space in others:
                drop_space(writable.catalogue, space.id)
        for space in others:
            writable.vector_file(space).delete()
            if space.spec.key != answering.spec.key:
                writable.background_file(space).unlink(missing_ok=True)
    return tuple(space.spec.name for space in others)

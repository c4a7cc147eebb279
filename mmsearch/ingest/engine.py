"""Who reads and encodes new files: threads of this process, or Ray."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mmsearch.core.options import EncoderOptions
from mmsearch.core.system import usable_cores
from mmsearch.core.types import EncoderSpec
from mmsearch.ingest.options import IngestOptions
from mmsearch.models.encoders import open_encoder
from mmsearch.pipeline.executor import Executor, ThreadExecutor


def executor_of(options: IngestOptions, model: Callable[[], str], spec: EncoderSpec) -> Executor:
    """What ``model`` names opens in other processes the encoder of which ``spec`` is known here."""
    if options.engine is None:
        return ThreadExecutor(options.readers or usable_cores(), options.memory_mb)
    from mmsearch.pipeline.ray import RayExecutor

    open_ = partial(open_encoder, model(), EncoderOptions(threads=1))
    return RayExecutor(options.engine, open_, spec, actors=options.readers, memory_mb=options.memory_mb)

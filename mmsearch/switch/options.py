"""How to change the encoder."""

from __future__ import annotations

from dataclasses import dataclass

from mmsearch.core.options import Options, option


@dataclass(frozen=True)
class SwitchOptions(Options):
    """``leave_out``: by default the switch waits until all documents can be read again. ``readers`` and ``memory_mb``
    are those of `mmsearch.ingest.IngestOptions`.
    """

    leave_out: bool = option(False, "Switch although some files could not be read again.", flag="--leave-out")
    activate: bool = option(
        True, "Only fill in its vectors; searches go on with the present model.", flag="--fill-only"
    )
    drop_others: bool = option(False, "Then give back the space of all other models.", flag="--drop-others")
    readers: int | None = option(None, "Threads that read files; by default one for each core.", least=1)
    memory_mb: float = option(256.0, "Megabytes that decoded files may take.", above=0)

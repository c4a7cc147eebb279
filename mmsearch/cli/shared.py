"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmsearch.core.errors import UsageError

DeviceOption = Annotated[str, typer.Option(help="Where open_clip models run: auto, cpu, cuda or mps.")]


def encoder_options(device: str, batch_size: int | None = None, compile_: bool = False, few_texts: bool = False) -> Any:
    """The options of an encoder, checked."""
    from mmsearch.models.encoders.base import EncoderOptions

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise UsageError(f"no such device: {device}; there are auto, cpu, cuda and mps")
    return EncoderOptions(device, batch_size, compile_, few_texts=few_texts)  # type: ignore[arg-type]

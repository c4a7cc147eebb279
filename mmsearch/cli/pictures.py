"""Pictures in the terminal, where it can show them: kitty's and iTerm2's protocols."""

from __future__ import annotations

import base64
import io
import os
import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.core.types import Hit

Protocol = Literal["kitty", "iterm2"]
SIDE = 160
"""Pixels of the longer side."""


def picture_protocol(*, forced: bool = False) -> Protocol | None:
    """How this terminal shows pictures, as far as its environment says; ``None`` in pipes and where unknown.

    ``forced``: iTerm2's where nothing is known, which most terminals that show pictures at all understand.
    """
    if not sys.stdout.isatty():
        return None
    term, program = os.environ.get("TERM", ""), os.environ.get("TERM_PROGRAM", "")
    if "KITTY_WINDOW_ID" in os.environ or "kitty" in term or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or os.environ.get("LC_TERMINAL") == "iTerm2" or forced:
        return "iterm2"
    return None


def print_picture(hit: Hit, protocol: Protocol) -> None:
    """Writes a small picture of the hit to the terminal, if it has one."""
    from mmsearch.query.thumbnail import thumbnail

    picture = thumbnail(hit.path, hit.modality, SIDE, hit.shown_s)
    if picture is not None:
        sys.stdout.write(encode_picture(picture, protocol) + "\n")


def encode_picture(picture: Image, protocol: Protocol) -> str:
    """The escape sequence that shows an RGB picture."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    data = base64.standard_b64encode(file.getvalue()).decode()
    if protocol == "iterm2":
        return f"\033]1337;File=inline=1;size={len(file.getvalue())}:{data}\a"
    chunks = [data[i : i + 4096] for i in range(0, len(data), 4096)]
    lines = []
    for number, chunk in enumerate(chunks):
        head = "a=T,f=100," if number == 0 else ""
        lines.append(f"\033_G{head}m={int(number + 1 < len(chunks))};{chunk}\033\\")
    return "".join(lines)

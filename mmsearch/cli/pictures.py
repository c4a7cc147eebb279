"""Pictures in the terminal, where it can show them: kitty's and iTerm2's protocols, and sixel."""

from __future__ import annotations

import base64
import io
import os
import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.core.types import Hit

Protocol = Literal["kitty", "iterm2", "sixel"]
SIDE = 160
"""Pixels of the longer side."""


def picture_protocol(*, forced: bool = False) -> Protocol | None:
    """How this terminal shows pictures, as far as its environment says; ``None`` in pipes and where unknown.

    ``forced``: sixel where nothing is known, which most terminals that show pictures at all understand.
    """
    if not sys.stdout.isatty():
        return None
    term, program = os.environ.get("TERM", ""), os.environ.get("TERM_PROGRAM", "")
    if "KITTY_WINDOW_ID" in os.environ or "kitty" in term or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or os.environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    if any(name in term for name in ("sixel", "foot", "mlterm")) or forced:
        return "sixel"
    return None


def print_picture(hit: Hit, protocol: Protocol) -> None:
    """Writes a small picture of the hit to the terminal, if it has one."""
    from mmsearch.query.thumbnail import thumbnail

    picture = thumbnail(hit.path, hit.modality, SIDE, hit.shown_s)
    if picture is not None:
        sys.stdout.write(encode_picture(picture, protocol) + "\n")


def encode_picture(picture: Image, protocol: Protocol) -> str:
    """The escape sequence that shows an RGB picture."""
    if protocol == "sixel":
        return sixel(picture)
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


def sixel(picture: Image, colours: int = 64) -> str:
    """A picture in DEC's sixel format: six rows at a time, colour by colour, runs shortened."""
    from PIL.Image import Quantize

    flat = picture.convert("RGB").quantize(colours, method=Quantize.MEDIANCUT)
    palette = (flat.getpalette() or [])[: 3 * colours]
    width, height = flat.size
    pixels = flat.tobytes()
    out = ["\033Pq", f'"1;1;{width};{height}']
    for number in range(len(palette) // 3):
        shares = [round(100 * value / 255) for value in palette[3 * number : 3 * number + 3]]
        out.append(f"#{number};2;{shares[0]};{shares[1]};{shares[2]}")
    for top in range(0, height, 6):
        rows = [pixels[y * width : (y + 1) * width] for y in range(top, min(top + 6, height))]
        for colour in sorted(set().union(*rows)):
            bits = [sum(1 << i for i, row in enumerate(rows) if row[x] == colour) for x in range(width)]
            out.append(f"#{colour}{_runs(bits)}$")
        out.append("-")
    out.append("\033\\")
    return "".join(out)


def _runs(bits: list[int]) -> str:
    parts, start = [], 0
    for place in range(1, len(bits) + 1):
        if place == len(bits) or bits[place] != bits[start]:
            count, char = place - start, chr(63 + bits[start])
            parts.append(char * count if count < 4 else f"!{count}{char}")
            start = place
    return "".join(parts)

"""A contact sheet: results as small pictures with their names, scores and times, in one image file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.cli.fonts import runs, width_of
from mmsearch.cli.output import Figure, figure_of, shown
from mmsearch.core.errors import UsageError

if TYPE_CHECKING:
    from mmsearch.core.types import Hit

CELL, CAPTION, GAP = 240, 34, 10
"""Pixels: of a picture's square, of the two lines below it, between cells."""
_INK, _PAPER, _FAINT = (20, 20, 20), (255, 255, 255), (225, 225, 225)


def draw_sheet(hits: Sequence[Hit], path: Path, columns: int | None = None) -> None:
    """Draws the hits in reading order, at most ``columns`` side by side (by default nearly a square).

    A file that cannot be read leaves an empty frame.

    Raises:
        UsageError: the sheet cannot be written.
    """
    from PIL import Image, ImageDraw

    from mmsearch.query.thumbnail import thumbnail

    across = columns or max(1, math.ceil(math.sqrt(len(hits) * 1.3)))
    down = math.ceil(len(hits) / across)
    size = (GAP + across * (CELL + GAP), GAP + down * (CELL + CAPTION + GAP))
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    has_both = len({hit.match for hit in hits}) > 1
    figure = figure_of(hits)
    for place, hit in enumerate(hits):
        left = GAP + place % across * (CELL + GAP)
        top = GAP + place // across * (CELL + CAPTION + GAP)
        pen.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=_FAINT)
        picture = thumbnail(hit.path, hit.modality, CELL, hit.shown_s)
        if picture is not None:
            sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
        for line, text in enumerate(_caption(hit, figure, weaker=has_both and not hit.match)):
            across_px = float(left)
            for piece, font in runs(_fitting(text, CELL)):
                pen.text((across_px, top + CELL + 16 + 15 * line), piece, fill=_INK, font=font, anchor="ls")
                across_px += font.getlength(piece)
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"the sheet cannot be written to {path}: {error}") from error


def _caption(hit: Hit, figure: Figure, *, weaker: bool) -> tuple[str, str]:
    moment = "" if hit.start_s is None else f"  {_clock(hit.start_s)}"
    if hit.end_s is not None and hit.start_s is not None and hit.end_s > hit.start_s:
        moment += f"–{_clock(hit.end_s)}"
    return f"{hit.rank}  {shown(hit, figure)}{moment}{'  weaker' if weaker else ''}", Path(hit.path).name


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def _fitting(text: str, width: int) -> str:
    """As much of a text as fits."""
    while text and width_of(text) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text

"""Letters of any script on a contact sheet: each in a font of this machine that has it, or a dot; never a box."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any

SIZE = 12
"""Points."""
SUBSTITUTE = "·"
_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts",),
}
_USUAL = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
_MOST = 200
"""Fonts that are looked into for one letter where nothing says which has it."""
_NOBODY = "\uffff"
"""Unicode promises that this is no character, so a font draws it as what it does not have."""


def runs(text: str) -> Iterator[tuple[str, Any]]:
    """A text in pieces, each with a font of Pillow that has all its letters."""
    shown = "".join(char if char.isprintable() else SUBSTITUTE for char in text)
    for font, group in groupby(shown, key=_font_for):
        piece = "".join(group)
        yield (piece, font) if font is not None else (SUBSTITUTE * len(piece), _own())


def width_of(text: str) -> float:
    """Pixels that a text takes."""
    return float(sum(font.getlength(piece) for piece, font in runs(text)))


@lru_cache(maxsize=1)
def _own() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(SIZE)


@lru_cache(maxsize=4096)
def _font_for(letter: str) -> Any | None:
    fonts = (_opened(path) for path in islice(_paths(letter), _MOST))
    return next((font for font in (_own(), *_used, *fonts) if font is not None and _has(font, letter)), None)


_used: list[Any] = []
"""Fonts that had a letter before: the next one of its script is most likely there too."""


@lru_cache(maxsize=512)
def _opened(path: str) -> Any | None:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(path, SIZE)
    except (OSError, ValueError):
        return None


def _has(font: Any, letter: str) -> bool:
    """Whether a font draws a letter otherwise than what it does not have."""
    try:
        drawn, missing = font.getmask(letter), font.getmask(_NOBODY)
    except (OSError, ValueError, UnicodeError):
        return False
    is_drawn = letter.isspace() or (drawn.size != missing.size or bytes(drawn) != bytes(missing))
    if is_drawn and font is not _own() and font not in _used:
        _used.append(font)
    return is_drawn


def _paths(letter: str) -> Iterator[str]:
    """Files of fonts, those first that fontconfig says have the letter."""
    try:
        asked = ["fc-list", f":charset={ord(letter):x}", "file"]
        done = subprocess.run(asked, capture_output=True, timeout=10, check=True, text=True)
        yield from (line.strip().rstrip(":") for line in done.stdout.splitlines())
        return
    except (OSError, subprocess.SubprocessError, UnicodeError):
        pass
    for folder in _FOLDERS.get(sys.platform, _USUAL):
        for suffix in ("ttc", "otf", "ttf"):
            yield from map(str, sorted(Path(folder).expanduser().rglob(f"*.{suffix}")))

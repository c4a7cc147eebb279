"""Text in pictures: signs, labels, slides, screenshots. Importing this package loads no model.

base  the contract of a text reader        rapid  the one that ships: RapidOCR, an extra
"""

from __future__ import annotations

import importlib.util

from mmsearch.core.errors import UsageError
from mmsearch.core.extras import install_hint
from mmsearch.media.ocr.base import TextReader


def has_text_reader() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("rapidocr") is not None


def open_text_reader() -> TextReader:
    """The text reader of this machine, with its models loaded.

    Raises:
        UsageError: the extra is not installed, or its models are not where its wheel puts them.
    """
    if not has_text_reader():
        raise UsageError(f"reading the text in pictures needs an extra that is not installed: {install_hint('ocr')}")
    from mmsearch.media.ocr.rapid import RapidTextReader

    return RapidTextReader()


__all__ = ["TextReader", "has_text_reader", "open_text_reader"]

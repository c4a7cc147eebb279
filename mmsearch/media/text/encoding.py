"""Bytes to text: which encoding a file is in, and whether it is text at all."""

from __future__ import annotations

import codecs

from mmsearch.core.errors import MediaError

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_WHITESPACE = b"\t\n\r\x0b\x0c"
_CONTROLS = bytes(byte for byte in range(32) if byte not in _WHITESPACE) + b"\x7f"
_PLAIN = bytes(range(32, 127)) + _WHITESPACE
_MAX_CONTROLS = 0.005
_MIN_PLAIN = 0.7


def text_encoding(data: bytes) -> str:
    """The Python name of the encoding of ``data``, a whole file or its beginning.

    A byte order mark decides; else UTF-8 if it is that (a few damaged bytes among many good ones are allowed,
    and a character cut at the end); else Windows-1252, if most of it is plain ASCII.

    Raises:
        MediaError: not text.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if b"\0" in data or controls > _MAX_CONTROLS * len(data):
        raise MediaError("not text: it has binary content (text in UTF-16 or UTF-32 needs a byte order mark)")
    if _is_utf8(data):
        return "utf-8"
    if len(data.translate(None, _PLAIN)) > (1 - _MIN_PLAIN) * len(data):
        raise MediaError("not text in a known encoding; expected UTF-8, UTF-16 with a byte order mark or Windows-1252")
    return "cp1252"


def _is_utf8(data: bytes) -> bool:
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data)
    damaged = text.count("\ufffd") - data.count("\ufffd".encode())
    if damaged <= 0:
        return True
    beyond_ascii = len(text) - len(text.encode("ascii", "ignore")) - text.count("\ufffd")
    return beyond_ascii > 10 * damaged


def decode_text(data: bytes) -> str:
    """A whole file to text; bytes that mean nothing in its encoding become U+FFFD.

    Raises:
        MediaError: not text.
    """
    return data.decode(text_encoding(data), "replace")

"""How this package talks to Pillow: files opened by their content, warnings muted, exceptions turned into
reasons.

``PIL.Image.open`` is not used. It tries every plugin that is installed (one of them starts Ghostscript), and
guards against decompression bombs by ``Image.MAX_IMAGE_PIXELS``, a global of the whole process: raising it
for one run of indexing would take the guard from every other user of Pillow in the process, and the warning
that it gives between one and two times the limit cannot be silenced for one thread alone. So the plugin is
chosen here by the first bytes of the file, and the size in the header is checked against the limit of the
options.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, cast

from mmsearch.core.errors import MediaError
from mmsearch.media.formats import VIDEO, Format, format_by_content

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

HEADER_BYTES = 512
"""So many first bytes decide what a file is."""


_OTHER_KINDS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(pattern, re.DOTALL))
    for kind, pattern in (
        ("a PDF document", rb"%PDF"),
        ("a sound file", rb"RIFF.{4}WAVE|ID3|OggS|fLaC"),
        ("a JPEG XL image, which is not supported", rb"\xff\x0a|\x00\x00\x00\x0cJXL "),
        ("a Photoshop document, which is not supported", rb"8BPS"),
        ("an archive", rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!"),
        ("an SVG drawing, which is not supported", rb"\s*(<\?xml.{0,400})?<svg"),
        ("a web page", rb"(?i)\s*<(!doctype )?html"),
        ("only zero bytes", rb"\x00{16}"),
        ("text", rb"[\t\n\r\x20-\x7e]{4,}\Z"),
    )
)


def describe_content(header: bytes) -> str:
    """What a file with these first bytes seems to be, for the reason of a refusal."""
    known = format_by_content(header, VIDEO)
    kinds = [known.content] if known is not None else [kind for kind, pattern in _OTHER_KINDS if pattern.match(header)]
    if kinds:
        return f"its content is {kinds[0]}"
    return f"its content is of no known kind (first bytes {header[:8].hex(' ')})"


def open_image(stream: IO[bytes], format_: Format) -> ImageFile:
    """The header of an image, read by the one plugin of its format; nothing is decoded yet."""
    module, _, class_ = format_.reader.partition(":")
    # The constructor of a plugin opens without Pillow's global guard (see above).
    plugin: Callable[[IO[bytes]], ImageFile] = getattr(import_module(module), class_)
    return plugin(stream)


_LIBRARY_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, NotImplementedError,
    OSError, RuntimeError, SyntaxError, TypeError, ValueError, Warning, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow and its plugins were seen to raise, or may raise, on damaged files."""


@contextmanager
def pillow_guard(format_: str) -> Iterator[None]:
    """Inside, Pillow is silent for this thread, and whatever it raises becomes a MediaError with a reason."""
    from PIL.Image import DecompressionBombError

    with _muted():
        try:
            yield
        except MediaError:
            raise
        except MemoryError as error:
            raise MediaError(f"too large: there was not enough memory to decode this {format_} image") from error
        except RecursionError as error:
            raise MediaError(f"damaged {format_}: its parts are nested too deeply") from error
        except DecompressionBombError as error:
            raise MediaError(f"damaged {format_}: one of its parts claims an absurd size") from error
        except _LIBRARY_ERRORS as error:
            raise MediaError(_reason(format_, error)) from error


_TRUNCATED = re.compile(
    r"truncat|not enough image data|unexpected end|end of (file|data|stream)|eof|broken data stream|"
    r"buffer is not large enough|cannot read this|incomplete|no more data|unpack requires|premature",
    re.IGNORECASE,
)


def _reason(format_: str, error: BaseException) -> str:
    """The reason of a refusal in plain words."""
    said = " ".join(str(error).split())[:160]
    if isinstance(error, (EOFError, struct.error)) or _TRUNCATED.search(said):
        return f"truncated {format_}: the file ends before its picture does ({said or 'end of file'})"
    return f"damaged {format_}: {said or type(error).__name__}"


class _HereOnly:
    """Stands where a warning filter has the pattern of the module: matches Pillow, in a thread that asked for
    it.

    ``warnings.catch_warnings`` changes the filters of the whole process and is not safe with threads. A
    filter that asks the current thread is: other threads, and Pillow's other users, keep their warnings.
    """

    def __init__(self) -> None:
        self.threads = threading.local()

    def match(self, module: str) -> bool:
        return getattr(self.threads, "muted", 0) > 0 and module.startswith(("PIL", "pillow_heif"))


_HERE_ONLY = _HereOnly()
_FILTER = ("ignore", None, Warning, _HERE_ONLY, 0)
_INSTALLING = threading.Lock()


@contextmanager
def _muted() -> Iterator[None]:
    """Inside, warnings of Pillow are ignored in this thread; they tell of harmless damage in metadata."""
    _install_filter()
    _silence_logger()
    threads = _HERE_ONLY.threads
    threads.muted = getattr(threads, "muted", 0) + 1
    try:
        yield
    finally:
        threads.muted -= 1


def _install_filter() -> None:
    """Puts the filter in front, where it may have been lost: test runners replace the whole list."""
    filters = cast("list[Any]", warnings.filters)
    if filters and filters[0] is _FILTER:
        return
    with _INSTALLING:
        filters.insert(0, _FILTER)
        for place in range(len(filters) - 1, 0, -1):
            if filters[place] is _FILTER:
                del filters[place]


def _silence_logger() -> None:
    """Without any handler, Python would write Pillow's log lines to the terminal."""
    logger = logging.getLogger("PIL")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())

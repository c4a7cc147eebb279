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
from typing import IO, TYPE_CHECKING, Any, cast

from mmsearch.core.errors import MediaError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

HEADER_BYTES = 512
"""So many first bytes decide what a file is."""

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}


def image_format(header: bytes) -> str | None:
    """The Pillow name of the image format that starts with ``header``, or ``None``."""
    if header[4:8] == b"ftyp":
        return _iso_media_format(header)
    for format_, pattern in _SIGNATURES:
        if pattern.match(header):
            return format_
    return None


def _iso_media_format(header: bytes) -> str | None:
    """HEIF, AVIF or Canon's CR3 by the brands of the first box; a generic first brand decides nothing."""
    length = min(int.from_bytes(header[:4], "big"), len(header))
    major, others = header[8:12], {header[start : start + 4] for start in range(16, length - 3, 4)}
    if major == b"crx ":
        return "CR3"
    if major in _AVIF_BRANDS or (major in {b"mif1", b"msf1"} and others & _AVIF_BRANDS):
        return "AVIF"
    if major in _HEIF_BRANDS:
        return "HEIF"
    return None


_SIGNATURES: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (format_, re.compile(pattern, re.DOTALL))
    for format_, pattern in (
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        ("GIF", rb"GIF8[79]a"),
        ("WEBP", rb"RIFF.{4}WEBP"),
        ("TIFF", rb"II\x2a\x00|MM\x00\x2a|II\x2b\x00|MM\x00\x2b"),
        ("RAW", rb"IIRO|IIRS|MMOR|IIU\x00|FUJIFILMCCD-RAW"),
        ("JPEG2000", rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
        ("BMP", rb"BM.{4}\x00{4}|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00{3}"),
        ("PPM", rb"P[1-6][\s#]"),
    )
)

_OTHER_KINDS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(pattern, re.DOTALL))
    for kind, pattern in (
        ("a PDF document", rb"%PDF"),
        ("an MP4 or QuickTime video", rb".{4}(ftyp|moov|mdat)"),
        ("a Matroska or WebM video", rb"\x1a\x45\xdf\xa3"),
        ("an AVI video", rb"RIFF.{4}AVI "),
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
    for kind, pattern in _OTHER_KINDS:
        if pattern.match(header):
            return f"its content is {kind}"
    return f"its content is of no known kind (first bytes {header[:8].hex(' ')})"


def open_image(stream: IO[bytes], format_: str) -> ImageFile:
    """The header of an image, read by the one plugin of its format; nothing is decoded yet."""
    return _plugin(format_)(stream)


def _plugin(format_: str) -> Callable[[IO[bytes]], ImageFile]:
    """The class that reads a format. Its constructor opens without Pillow's global guard (see above)."""
    if format_ == "JPEG":
        from PIL.JpegImagePlugin import JpegImageFile as Plugin
    elif format_ == "PNG":
        from PIL.PngImagePlugin import PngImageFile as Plugin  # type: ignore[assignment]
    elif format_ == "GIF":
        from PIL.GifImagePlugin import GifImageFile as Plugin  # type: ignore[assignment]
    elif format_ == "WEBP":
        from PIL.WebPImagePlugin import WebPImageFile as Plugin  # type: ignore[assignment]
    elif format_ == "TIFF":
        from PIL.TiffImagePlugin import TiffImageFile as Plugin  # type: ignore[assignment]
    elif format_ == "JPEG2000":
        from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile as Plugin  # type: ignore[assignment]
    elif format_ == "BMP":
        from PIL.BmpImagePlugin import BmpImageFile as Plugin  # type: ignore[assignment]
    elif format_ == "PPM":
        from PIL.PpmImagePlugin import PpmImageFile as Plugin  # type: ignore[assignment]
    elif format_ == "AVIF":
        from PIL.AvifImagePlugin import AvifImageFile as Plugin  # type: ignore[assignment]
    elif format_ == "HEIF":
        from pillow_heif.as_plugin import HeifImageFile as Plugin  # type: ignore[assignment]
    else:
        raise MediaError(f"images of the format {format_} are not supported")
    return cast("Callable[[IO[bytes]], ImageFile]", Plugin)


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

"""Every format of files, one row each: the suffixes of its names, how its bytes begin, what reads it.

All else derives from this table: which files a walk takes, which may have a caption beside them, what a picture is by
its content, what is said of a file that has the wrong suffix. An installed package brings a format as an entry point in
``mmsearch.media`` whose object is a `Format`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

from mmsearch.core.registry import Registry

IMAGE = "mmsearch.media.image.reader:ImageDecoder"
VIDEO = "mmsearch.media.video.reader:VideoDecoder"
TEXT = "mmsearch.media.text.reader:TextDecoder"
SOUND = "mmsearch.media.sound.reader:SoundDecoder"
RAW = "raw"
"""The ``reader`` of camera RAW, whose stored preview is shown (`mmsearch.media.image.raw`)."""
_GENERIC_BRANDS = {"mif1", "msf1"}


@dataclass(frozen=True)
class Format:
    """One format.

    ``suffixes`` are lower case, with the dot. ``decoder`` is ``module:Class`` of the `Decoder` of its family.
    ``reader`` is what that decoder reads it with: of an image, ``module:Class`` of a Pillow plugin, or ``RAW``; of a
    video or a recording, names of FFmpeg's demuxers; of a text, the form that it has. ``signature`` is a pattern that
    the first bytes match, ``brands`` names the file types of an ISO base media file instead; without either the suffix
    alone counts. ``animated``: the format may hold several frames with times. ``content``: what such a file is, for a
    file that has the suffix of another.
    """

    name: str
    suffixes: tuple[str, ...]
    decoder: str
    reader: str = ""
    signature: bytes = b""
    brands: frozenset[str] = frozenset()
    animated: bool = False
    content: str = ""

    def begins(self, header: bytes) -> bool:
        """Whether the first 512 bytes of a file, or all of a shorter one, are those of this format."""
        if not self.brands:
            return bool(self.signature) and self._pattern.match(header) is not None
        if header[4:8] != b"ftyp":
            return False
        length = min(int.from_bytes(header[:4], "big"), len(header))
        major = header[8:12].decode("latin-1")
        others = {header[start : start + 4].decode("latin-1") for start in range(16, length - 3, 4)}
        # A generic first brand decides nothing: what else the file is compatible with does.
        return major in self.brands or (major in _GENERIC_BRANDS and bool(others & self.brands))

    @cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        return re.compile(self.signature, re.DOTALL)


def _image(
    name: str, suffixes: str, reader: str, signature: bytes = b"", *, brands: str = "", animated: bool = False
) -> Format:
    return Format(
        name,
        tuple(suffixes.split()),
        IMAGE,
        reader,
        signature,
        frozenset(brands.split("/")) if brands else frozenset(),
        animated,
    )


def _video(name: str, suffixes: str, demuxers: str, signature: bytes = b"", content: str = "") -> Format:
    return Format(name, tuple(suffixes.split()), VIDEO, demuxers, signature, content=content)


# In the order in which contents are tried. ISO base media files come first: bytes 4 to 8 tell them from all others.
_ROWS = (
    _image("AVIF", ".avif", "PIL.AvifImagePlugin:AvifImageFile", brands="avif/avis", animated=True),
    _image("HEIF", ".heic .heif .hif", "pillow_heif.as_plugin:HeifImageFile",
           brands="heic/heix/heim/heis/hevc/hevx/hevm/hevs/mif1/msf1"),
    _image("CR3", ".cr3", RAW, brands="crx "),
    _image("JPEG", ".jpg .jpeg .jpe .jfif", "PIL.JpegImagePlugin:JpegImageFile", rb"\xff\xd8\xff"),
    _image("PNG", ".png .apng", "PIL.PngImagePlugin:PngImageFile", rb"\x89PNG\r\n\x1a\n", animated=True),
    _image("GIF", ".gif", "PIL.GifImagePlugin:GifImageFile", rb"GIF8[79]a", animated=True),
    _image("WEBP", ".webp", "PIL.WebPImagePlugin:WebPImageFile", rb"RIFF.{4}WEBP", animated=True),
    _image("TIFF", ".tif .tiff", "PIL.TiffImagePlugin:TiffImageFile",
           rb"II\x2a\x00|MM\x00\x2a|II\x2b\x00|MM\x00\x2b"),
    # Most camera RAW is TIFF by its content: there the suffix decides.
    _image("RAW", ".cr2 .nef .nrw .arw .dng .orf .rw2 .raf .pef .srw", RAW,
           rb"IIRO|IIRS|MMOR|IIU\x00|FUJIFILMCCD-RAW"),
    _image("JPEG2000", ".jp2 .j2k .jpx .jpc", "PIL.Jpeg2KImagePlugin:Jpeg2KImageFile",
           rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    _image("BMP", ".bmp .dib", "PIL.BmpImagePlugin:BmpImageFile",
           rb"BM.{4}\x00{4}|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00{3}"),
    _image("PPM", ".pnm .ppm .pgm .pbm", "PIL.PpmImagePlugin:PpmImageFile", rb"P[1-6][\s#]"),
    _video("MP4", ".mp4 .mov .m4v .3gp", "mov", rb".{4}(ftyp|moov|mdat)", "an MP4 or QuickTime video"),
    _video("Matroska", ".mkv .webm", "matroska", rb"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    _video("AVI", ".avi", "avi", rb"RIFF.{4}AVI ", "an AVI video"),
    _video("MPEG", ".mpg .mpeg", "mpeg,mpegvideo"),
    _video("MPEG-TS", ".ts .mts .m2ts", "mpegts"),
    _video("WMV", ".wmv", "asf"),
    _video("FLV", ".flv", "flv"),
    _video("Ogg", ".ogv", "ogg"),
    *(Format(name, tuple(suffixes.split()), SOUND, demuxers) for name, suffixes, demuxers in (
        ("MP3", ".mp3", "mp3"), ("M4A", ".m4a .m4b", "mov"), ("AAC", ".aac", "aac"), ("WAV", ".wav", "wav,w64"),
        ("FLAC", ".flac", "flac"), ("Ogg sound", ".ogg .oga .opus", "ogg"), ("WMA", ".wma", "asf"),
        ("AIFF", ".aif .aiff", "aiff"), ("Matroska sound", ".mka", "matroska"),
    )),
    Format("prose", (".txt", ".text"), TEXT, "prose"),
    Format("Markdown", (".md", ".markdown"), TEXT, "markdown"),
    Format("table", (".csv", ".tsv", ".jsonl", ".ndjson"), TEXT, "table"),
)  # fmt: skip

FORMATS: Registry[Format] = Registry("mmsearch.media", "media format", {row.name: row for row in _ROWS})


def formats(*decoders: str) -> Iterator[Format]:
    """All formats, those of installed packages last; with ``decoders``, those that these read."""
    rows = (FORMATS[name] for name in FORMATS)
    return (row for row in rows if not decoders or row.decoder in decoders)


def format_by_content(header: bytes, decoder: str) -> Format | None:
    """The format of a family that starts with ``header``, the first 512 bytes of a file."""
    # Our own are nearly always enough: then no installed package is looked for.
    found = next((row for row in _own_formats(decoder) if row.begins(header)), None)
    if found is None and header[4:8] != b"ftyp":
        found = next((row for row in formats(decoder) if row.begins(header)), None)
    return found


@cache
def _own_formats(decoder: str) -> tuple[Format, ...]:
    return tuple(row for row in _ROWS if row.decoder == decoder)


@lru_cache(maxsize=1024)
def format_by_suffix(suffix: str) -> Format | None:
    """The format whose files are called so; ``suffix`` in any case, with the dot."""
    lower = suffix.lower()
    found = next((row for row in _ROWS if lower in row.suffixes), None)
    return found or next((row for row in formats() if lower in row.suffixes), None)


def suffixes_of(*decoders: str, reader: str = "") -> frozenset[str]:
    """All suffixes of families; with ``reader``, of what is read by it."""
    return frozenset(
        suffix for row in formats(*decoders) if not reader or row.reader == reader for suffix in row.suffixes
    )

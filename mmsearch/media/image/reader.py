"""Images: one segment for a still, several for a very wide or tall one, for an animation, for the pages of a TIFF.

The way of every picture: format by content → size against the limit, from the header → decode (JPEG at a
reduced DCT scale) → eight bits, no transparency → smaller by a whole factor → sRGB → upright.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Literal

from mmsearch.core.errors import MediaError
from mmsearch.core.types import MediaInfo, Modality
from mmsearch.media.base import Decoded, DecodedSegment, DecodeOptions, Decoder, opened
from mmsearch.media.formats import FORMATS, IMAGE, RAW, Format, format_by_content, format_by_suffix
from mmsearch.media.image.coding import coding_of
from mmsearch.media.image.colour import flatten, shrink, to_srgb, upright
from mmsearch.media.image.mending import mended
from mmsearch.media.image.metadata import ExifTags, exif_of, media_info
from mmsearch.media.image.motion import clip_of, moments
from mmsearch.media.image.pillow_guard import (
    HEADER_BYTES,
    describe_content,
    open_image,
    pillow_guard,
)
from mmsearch.media.image.raw import Preview, RawFile, read_raw
from mmsearch.media.image.wide import parts
from mmsearch.media.video.similarity import SAME_PICTURE, frame_difference, thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

MAX_ANIMATION_SEGMENTS = 8
MAX_ANIMATION_FRAMES = 600
"""An animation is sampled evenly among its first 600 frames (fewer where they are very large)."""
MAX_PAGES = 16
"""Pages of a TIFF beyond this are not read."""

_MAX_PREVIEW_TRIES = 4
_CODING = "mmsearch_coding"
"""Where `Image.info` holds the `Coding` of the colours."""
TIFF = FORMATS["TIFF"]


class ImageDecoder(Decoder):
    """Photos and pictures.

    - A still gives one segment; more than twice as long as wide, one for each part (``decoders.wide``). Images are
      upright sRGB; their shorter side has at least twice ``options.min_side`` pixels where the file has as many.
    - An animation (GIF, WebP, PNG, AVIF) is a very short video: up to eight frames, evenly spaced,
      near-identical neighbours merged, each with its start and end; a single remaining one has no times.
    - A TIFF gives its pages, up to sixteen, without those that are marked as thumbnails or masks.
    - HEIF files and multi-picture JPEGs give their primary picture.
    - Camera RAW gives the JPEG preview that the camera stored.
    - A motion photo gives its picture, then what its clip shows besides, with times.

    All but clips is decoded in ``decode``, so no file stays open and every error comes from there.
    """

    modality: Modality = "image"
    version = 2

    def decode(self, path: Path, options: DecodeOptions, data: bytes | None = None) -> Decoded:
        """See :meth:`Decoder.decode`."""
        with opened(path, data) as stream:
            format_ = _format(stream)
            if _is_raw(format_, path):
                info, segments = _decode_raw(stream, format_, options)
            else:
                info, segments = _decode_whole(stream, format_, options)
            clip = clip_of(stream, format_)
        more = moments(clip, segments[0], path, options) if clip is not None else iter(())
        return Decoded(info, chain(segments, more))

    def describe(self, path: Path, options: DecodeOptions) -> MediaInfo | Literal["again"]:
        """See :meth:`Decoder.describe`: high dynamic range was shown as if it were plain, clips were not looked at."""
        with opened(path, None) as stream:
            format_ = _format(stream)
            if clip_of(stream, format_) is not None:
                return "again"
            stream.seek(0)
            if _is_raw(format_, path):
                return _describe_raw(stream, options)
            with pillow_guard(format_.name), open_image(stream, format_) as image:
                coding = coding_of(image, stream)
                if coding is not None and coding.is_hdr:
                    return "again"
                exif = exif_of(image, header_alone=True)
                return media_info(exif, _upright_size(image, exif), image)


def _is_raw(format_: Format, path: Path) -> bool:
    """Most camera RAW is TIFF by its content: there the suffix decides."""
    named = format_by_suffix(path.suffix)
    return format_.reader == RAW or (format_ is TIFF and named is not None and named.reader == RAW)


def _format(stream: IO[bytes]) -> Format:
    header = stream.read(HEADER_BYTES)
    stream.seek(0)
    if not header:
        raise MediaError("empty file")
    format_ = format_by_content(header, IMAGE)
    if format_ is None:
        raise MediaError(f"not an image: {describe_content(header)}")
    return format_


def _decode_whole(stream: IO[bytes], format_: Format, options: DecodeOptions) -> tuple[MediaInfo, list[DecodedSegment]]:
    """Also of a file in which only what stands beside the picture is damaged."""
    try:
        return _decode(stream, format_, options)
    except MediaError as error:
        if error.__cause__ is None:  # not Pillow's, but a limit of ours
            raise
        found: list[tuple[MediaInfo, list[DecodedSegment]]] = []
        with suppress(MediaError):
            found += [_decode(way.stream, format_, options, way.info) for way in mended(stream, format_.name)]
        if found and all(_show_the_same(found[0][1], other) for _, other in found[1:]):
            return found[0]
        raise


def _show_the_same(some: list[DecodedSegment], others: list[DecodedSegment]) -> bool:
    return [one.image for one in some] == [one.image for one in others]


def _decode(
    stream: IO[bytes], format_: Format, options: DecodeOptions, more: Mapping[str, Any] = MappingProxyType({})
) -> tuple[MediaInfo, list[DecodedSegment]]:
    """``more``: what the plugin could not find in the file."""
    with pillow_guard(format_.name), open_image(stream, format_) as image:
        image.info.update(more, **{_CODING: coding_of(image, stream)})
        _check_size(image.size, options)
        exif = exif_of(image)
        info = media_info(exif, _upright_size(image, exif), image)
        if format_.animated and getattr(image, "is_animated", False):
            return _animation(image, info, options)
        if format_ is TIFF:
            return _pages(image, info, options)
        return info, _still(_picture(image, exif.orientation, options), options)


def _check_size(size: tuple[int, int], options: DecodeOptions) -> None:
    megapixels = size[0] * size[1] / 1e6
    if megapixels > options.max_megapixels:
        raise MediaError(
            f"too large: {size[0]} × {size[1]} are {megapixels:.1f} megapixels, the limit is "
            f"{options.max_megapixels:g}; raise it with --max-megapixels"
        )


def _upright_size(image: ImageFile, exif: ExifTags) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image, exif) >= 5 else (width, height)


def _orientation(image: ImageFile, exif: ExifTags) -> int:
    """What is left to undo: Pillow turns TIFF by itself, and gives its size accordingly."""
    return 1 if image.format == "TIFF" else exif.orientation


def _picture(image: ImageFile, orientation: int, options: DecodeOptions, turns: bool = False) -> Image:
    """The current frame, decoded, in sRGB, upright, not larger than it needs to be."""
    side = 2 * options.min_side
    # JPEG alone can decode at 1/2, 1/4 or 1/8; Pillow takes the smallest that keeps both sides at least this
    # long.
    image.draft("RGB" if image.mode in {"RGB", "YCbCr"} else None, (side, side))
    image.load()
    small = shrink(flatten(image), side)
    coding = image.info.get(_CODING)
    picture = upright(to_srgb(small, image.info.get("icc_profile"), coding), orientation)
    # Not the opened image itself where it goes on to another frame: its pixels would change under the segment.
    return picture.copy() if picture is image and turns else picture


def _still(picture: Image, options: DecodeOptions) -> list[DecodedSegment]:
    return [DecodedSegment(image=part) for part in (parts(picture) if options.cut_wide else [picture])]


def _animation(image: ImageFile, info: MediaInfo, options: DecodeOptions) -> tuple[MediaInfo, list[DecodedSegment]]:
    """Frames depend on those before, so all up to the last wanted one are decoded; the time is bounded."""
    frames = int(getattr(image, "n_frames", 1))
    budget = int(10 * options.max_megapixels * 1e6 / max(1, image.size[0] * image.size[1]))
    read = max(1, min(frames, MAX_ANIMATION_FRAMES, budget))
    wanted = {number * read // MAX_ANIMATION_SEGMENTS for number in range(MAX_ANIMATION_SEGMENTS)}
    orientation, now = exif_of(image).orientation, 0.0
    kept: list[tuple[float, Image]] = []
    note = None if read == frames else f"only the first {read} of {frames} frames were read"
    last = None
    for number in range(read):
        try:
            with pillow_guard(str(image.format)):
                image.seek(number)
                _check_size(image.size, options)
                image.load()
                picture = _picture(image, orientation, options, turns=True) if number in wanted else None
        except MediaError as error:
            if not kept:
                raise
            note = f"only the first {number} of {frames} frames could be read: {error}"
            break
        if picture is not None:
            small = thumbnail(picture)
            if last is None or frame_difference(last, small) >= SAME_PICTURE:
                kept.append((now, picture))
                last = small
        now += _frame_seconds(image)
    info = replace(info, duration_s=round(now, 3), note=note)
    if len(kept) == 1:
        return info, [DecodedSegment(image=kept[0][1])]
    ends = [start for start, _ in kept[1:]] + [now]
    pairs = zip(kept, ends, strict=True)
    return info, [DecodedSegment(image=picture, start_s=start, end_s=end) for (start, picture), end in pairs]


def _frame_seconds(image: ImageFile) -> float:
    """How long the current frame is shown. As in browsers, 10 ms and less mean 100 ms."""
    milliseconds = image.info.get("duration", 0)
    milliseconds = float(milliseconds) if isinstance(milliseconds, (int, float)) else 0.0
    return (milliseconds if milliseconds > 10 else 100.0) / 1000


def _pages(image: ImageFile, info: MediaInfo, options: DecodeOptions) -> tuple[MediaInfo, list[DecodedSegment]]:
    """Pages of a TIFF up to the first that cannot be read."""
    segments: list[DecodedSegment] = []
    note = None
    for number in range(MAX_PAGES + 1):
        try:
            with pillow_guard("TIFF"):
                if not _turn_to(image, number):
                    break
                if number == MAX_PAGES:
                    note = f"only the first {MAX_PAGES} pages were read"
                    break
                if number == 0 or not _is_auxiliary(image):
                    _check_size(image.size, options)
                    segments += _still(_picture(image, 1, options, turns=True), options)
        except MediaError as error:
            if not segments:
                raise
            note = f"page {number + 1} could not be read: {error}"
            break
    return replace(info, note=note), segments


def _turn_to(image: ImageFile, page: int) -> bool:
    try:
        image.seek(page)
    except EOFError:
        return False
    return True


def _is_auxiliary(image: ImageFile) -> bool:
    """Whether NewSubfileType (TIFF 6.0, tag 254) marks a page as a reduced copy (1) or a mask (4)."""
    kind = image.tag_v2.get(254, 0) if hasattr(image, "tag_v2") else 0
    return isinstance(kind, int) and bool(kind & 5)


def _decode_raw(stream: IO[bytes], format_: Format, options: DecodeOptions) -> tuple[MediaInfo, list[DecodedSegment]]:
    with pillow_guard("camera RAW"):
        raw = read_raw(stream, 2 * options.min_side)
    problem: MediaError | None = None
    for preview in raw.previews[:_MAX_PREVIEW_TRIES]:
        try:
            return _decode_preview(stream, raw, preview, options)
        except MediaError as error:
            problem = problem or error
    if format_ is TIFF:
        # Scanners and converters write DNG files that hold an ordinary picture. What Pillow has against the sensor's
        # data of all others is no reason to tell.
        with suppress(MediaError):
            stream.seek(0)
            return _decode(stream, TIFF, options)
    reason = "no preview picture in this camera RAW file; export it as JPEG, or as DNG with a preview"
    raise MediaError(f"{reason} ({problem})" if problem else reason)


def _decode_preview(
    stream: IO[bytes], raw: RawFile, preview: Preview, options: DecodeOptions
) -> tuple[MediaInfo, list[DecodedSegment]]:
    with _opened_preview(stream, raw, preview) as (image, exif, info):
        _check_size(image.size, options)
        picture = _picture(image, exif.orientation, options)
    return info, _still(picture, options)


@contextmanager
def _opened_preview(
    stream: IO[bytes], raw: RawFile, preview: Preview
) -> Iterator[tuple[ImageFile, ExifTags, MediaInfo]]:
    """The RAW file's tags count; where it has none, those of the preview."""
    from PIL.ContainerIO import ContainerIO

    stream.seek(0, 2)
    window = ContainerIO(stream, preview.offset, stream.tell() - preview.offset)
    with pillow_guard("JPEG preview"), open_image(window, FORMATS["JPEG"]) as image:
        exif = raw.exif if raw.exif.main else exif_of(image)
        size = max(raw.size, image.size, key=lambda size: size[0] * size[1])
        yield image, exif, media_info(exif, size[::-1] if exif.orientation >= 5 else size, image)


def _describe_raw(stream: IO[bytes], options: DecodeOptions) -> MediaInfo:
    with pillow_guard("camera RAW"):
        raw = read_raw(stream, 2 * options.min_side)
    for preview in raw.previews[:_MAX_PREVIEW_TRIES]:
        with suppress(MediaError), _opened_preview(stream, raw, preview) as (_, _, info):
            return info
    raise MediaError("no preview picture in this camera RAW file")

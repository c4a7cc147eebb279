"""Videos: the right moments at the right times, upright, in the right colours; or a reason."""

from __future__ import annotations

import io
import itertools
import math
import os
import struct
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.core.errors import MediaError
from mmsearch.core.types import MediaInfo
from mmsearch.media import DecodedSegment, DecodeOptions, decoder_for
from mmsearch.media.video.frame import _taken_at, turn
from mmsearch.media.video.reader import VideoDecoder
from mmsearch.media.video.sampling import Chooser, Group, Merger, plan_group
from mmsearch.media.video.similarity import frame_difference, thumbnail
from tests.support.zones import ZONES, zone

OPTIONS = DecodeOptions(min_side=32)
DECODER = VideoDecoder()
SIZE = (160, 96)
FAST = {
    "libx264": {"preset": "ultrafast", "g": "250"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "200k"},
}
COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 170, 40),
    "blue": (30, 50, 210),
    "yellow": (230, 210, 40),
    "violet": (130, 40, 190),
    "white": (240, 240, 240),
}
GRID = np.random.default_rng(1).integers(-25, 25, (SIZE[1] // 8, SIZE[0] // 8, 3)).repeat(8, 0).repeat(8, 1)

Scene = tuple[float, str]
"""When it starts, and its colour."""


def paint(colour: str, moved: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    texture = np.roll(np.resize(GRID, (size[1], size[0], 3)), moved, axis=1)
    return np.clip(np.asarray(COLOURS[colour]) + texture, 0, 255).astype(np.uint8)


def scene_at(scenes: Sequence[Scene], time: float) -> str:
    return [colour for start, colour in scenes if start <= time + 1e-6][-1]


def write_clip(
    path: Path,
    scenes: Sequence[Scene],
    times: Sequence[float],
    *,
    codec: str = "libx264",
    format_: str | None = None,
    options: dict[str, str] | None = None,
    moving: bool = False,
    size: tuple[int, int] = SIZE,
    pix_fmt: str = "yuv420p",
    metadata: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    rate: int = 10,
    aspect: Fraction | None = None,
    sound: bool = False,
) -> Path:
    """A clip with a frame at each of ``times``, in the colour of its scene."""
    with av.open(str(path), "w", format=format_, options=mux or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.thread_count = 1
        stream.options = {**FAST.get(codec, {}), **(options or {})}
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        base = Fraction(1, rate) if codec in {"mpeg1video", "mpeg2video", "mpeg4", "h263", "flv"} else Fraction(1, 1000)
        stream.codec_context.time_base = base
        audio = container.add_stream("aac", rate=8000) if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(paint(scene_at(scenes, time), number if moving else 0, size), "rgb24")
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            write_sound(container, audio, times[-1])
    return path


def write_sound(container: Any, stream: Any, seconds: float) -> None:
    silence = np.zeros((1, 1024), np.float32)
    for start in range(0, int(seconds * 8000), 1024):
        frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def steady(seconds: float, rate: int = 10) -> list[float]:
    return [number / rate for number in range(int(seconds * rate))]


def decode(path: Path, options: DecodeOptions = OPTIONS) -> tuple[MediaInfo, list[DecodedSegment]]:
    decoded = DECODER.decode(path, options)
    segments = list(decoded.segments)
    assert decoded.final_info is not None
    return decoded.final_info(), segments


def check_contiguous(segments: list[DecodedSegment], end: float) -> None:
    assert segments[0].start_s == pytest.approx(0.0, abs=0.11)
    for earlier, later in itertools.pairwise(segments):
        assert earlier.end_s == later.start_s
        assert earlier.start_s < later.start_s
    assert segments[-1].end_s == pytest.approx(end, abs=0.3)


def colour_of(segment: DecodedSegment) -> str:
    assert segment.image is not None
    assert segment.image.mode == "RGB"
    mean = np.asarray(segment.image, np.float32).mean(axis=(0, 1))
    return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))


def check_scenes(segments: list[DecodedSegment], scenes: Sequence[Scene], error: float = 0.5) -> None:
    """Every scene begins with a segment that shows it, and no segment shows what is not there."""
    shown = [(segment.start_s, colour_of(segment)) for segment in segments]
    firsts = [pair for number, pair in enumerate(shown) if number == 0 or shown[number - 1][1] != pair[1]]
    assert [colour for _, colour in firsts] == [colour for _, colour in scenes]
    for (found, _), (expected, _) in zip(firsts, scenes, strict=True):
        assert found is not None
        assert abs(found - expected) <= error


SCENES: list[Scene] = [(0.0, "red"), (3.3, "green"), (7.1, "violet"), (8.0, "yellow"), (12.6, "blue")]

CONTAINERS = [
    (".mp4", "libx264", None),
    (".mov", "libx264", None),
    (".mkv", "libx264", None),
    (".m4v", "libx264", "mp4"),
    (".webm", "libvpx", None),
    (".avi", "mpeg4", None),
    (".mpg", "mpeg1video", "mpeg"),
    (".mpeg", "mpeg2video", "mpeg"),
    (".wmv", "wmv2", "asf"),
    (".flv", "flv", None),
    (".3gp", "libx264", None),
    (".ts", "libx264", "mpegts"),
    (".mts", "libx264", "mpegts"),
    (".m2ts", "mpeg2video", "mpegts"),
    (".ogv", "libvpx", "ogg"),
    (".mp4", "libx265", None),
    (".mkv", "mjpeg", None),
    (".mkv", "ffv1", None),
]


@pytest.mark.parametrize(("suffix", "codec", "format_"), CONTAINERS)
def test_every_container_shows_its_scenes(tmp_path: Path, suffix: str, codec: str, format_: str | None) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg cannot write {codec}")
    rate = 25 if codec.startswith("mpeg") else 10
    path = write_clip(
        tmp_path / f"clip{suffix}",
        SCENES,
        steady(15, rate),
        codec=codec,
        format_=format_,
        rate=rate,
        pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
    )
    info, segments = decode(path)
    check_contiguous(segments, 15.0)
    check_scenes(segments, SCENES)
    assert (info.width, info.height) == SIZE
    assert info.duration_s == pytest.approx(15.0, abs=0.3)
    assert isinstance(decoder_for(Path("CLIP" + suffix.upper())), VideoDecoder)


def test_every_suffix_is_in_the_matrix() -> None:
    assert VideoDecoder().suffixes == {suffix for suffix, _, _ in CONTAINERS}


KEYFRAMES = {
    "where the encoder sees cuts": {},
    "every second, never at cuts": {"g": "10", "keyint_min": "10", "sc_threshold": "0"},
    "every two seconds, never at cuts": {"g": "20", "keyint_min": "20", "sc_threshold": "0"},
    "every seven seconds, never at cuts": {"g": "70", "keyint_min": "70", "sc_threshold": "0"},
    "only one": {"g": "1000", "keyint_min": "1000", "sc_threshold": "0"},
    "every frame": {"g": "1"},
    "open groups with many B-frames": {
        "g": "25",
        "sc_threshold": "0",
        "bf": "5",
        "x264-params": "open-gop=1:b-pyramid=2",
    },
}


@pytest.mark.parametrize("keyframes", sorted(KEYFRAMES))
@pytest.mark.parametrize("moving", [False, True])
def test_cuts_are_found_in_time_wherever_keyframes_are(tmp_path: Path, keyframes: str, moving: bool) -> None:
    path = write_clip(tmp_path / "a.mp4", SCENES, steady(15), options=KEYFRAMES[keyframes], moving=moving)
    info, segments = decode(path)
    check_contiguous(segments, 15.0)
    check_scenes(segments, SCENES)
    assert info.note is None


def test_variable_frame_rate_has_the_right_times(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    times = [0.0]
    while times[-1] < 15:
        times.append(round(times[-1] + float(generator.choice([0.02, 0.05, 0.3])), 3))
    for name, options in (("a.mkv", {}), ("b.mp4", {"g": "12", "sc_threshold": "0"})):
        path = write_clip(tmp_path / name, SCENES, times, options=options, moving=True)
        _, segments = decode(path)
        check_contiguous(segments, times[-1])
        check_scenes(segments, SCENES)


def test_slides_that_stand_for_long_are_found_where_they_begin(tmp_path: Path) -> None:
    """Hardly any frames: each is on show until the next one."""
    slides: list[Scene] = [(0.0, "red"), (1.0, "green"), (31.0, "blue"), (32.0, "white"), (61.0, "yellow")]
    for name, options in (("a.mkv", {"g": "1000", "sc_threshold": "0"}), ("b.mkv", {})):
        path = write_clip(tmp_path / name, slides, [start for start, _ in slides] + [61.5], options=options)
        _, segments = decode(path)
        assert [(segment.start_s, colour_of(segment)) for segment in segments] == slides


def test_times_start_at_zero_where_the_stream_does_not(tmp_path: Path) -> None:
    later = [time + 500 for time in steady(15)]
    scenes = [(start + 500 if number else 0.0, colour) for number, (start, colour) in enumerate(SCENES)]
    for name, format_ in (("a.ts", "mpegts"), ("a.mkv", None)):
        path = write_clip(tmp_path / name, scenes, later, format_=format_)
        _, segments = decode(path)
        check_contiguous(segments, 15.0)
        check_scenes(segments, SCENES)


def test_joined_recordings_go_on_instead_of_jumping_back(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "a.ts", SCENES, steady(15), format_="mpegts").read_bytes()
    (tmp_path / "two.ts").write_bytes(first + first)
    _, segments = decode(tmp_path / "two.ts")
    again = [(start + 15, colour) for start, colour in SCENES]
    check_contiguous(segments, 30.0)
    check_scenes(segments, [*SCENES, *again], error=1.0)


def test_what_stands_still_is_one_segment(tmp_path: Path) -> None:
    for name, options in (("a.mp4", {}), ("b.mp4", {"g": "10"})):
        _, segments = decode(write_clip(tmp_path / name, [(0.0, "blue")], steady(20), options=options))
        assert [(segment.start_s, segment.end_s) for segment in segments] == [(0.0, pytest.approx(20.0, abs=0.1))]


@pytest.mark.parametrize("interval", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("options", [{"g": "7"}, {"g": "30"}, {"g": "250"}], ids=str)
def test_what_moves_is_looked_at_often_enough_and_not_too_often(
    tmp_path: Path, interval: float, options: dict[str, str]
) -> None:
    def drift(number: int) -> np.ndarray:
        ramp = np.linspace(0, 1, SIZE[0])[None, :, None]
        turned = np.roll(ramp, number, axis=1) * np.array([255, 120, 60])
        return np.broadcast_to(turned, (SIZE[1], SIZE[0], 3)).astype(np.uint8)

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "ultrafast", "sc_threshold": "0", **options}
        for number in range(200):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(drift(number), "rgb24")))
        container.mux(stream.encode(None))
    _, segments = decode(path, DecodeOptions(min_side=32, frame_interval_s=interval))
    lengths = [segment.end_s - segment.start_s for segment in segments if segment.end_s and segment.start_s is not None]
    assert max(lengths) <= interval + 0.25
    assert len(segments) <= 20 / interval * 2 + 2


def turned_by(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes a display matrix into the track header of an MP4 file (ISO 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


TURNS = [
    (1, 0, 0, 1),
    (0, 1, -1, 0),
    (-1, 0, 0, -1),
    (0, -1, 1, 0),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, -1, -1, 0),
]


@pytest.mark.parametrize("matrix", TURNS)
def test_turned_videos_come_out_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """The oracle moves every pixel by the formula of the display matrix."""
    upright = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    upright[: SIZE[1] // 2, : SIZE[0] // 2] = (220, 40, 40)
    upright[: SIZE[1] // 2, SIZE[0] // 2 :] = (40, 220, 40)
    upright[SIZE[1] // 2 :, : SIZE[0] // 2] = (40, 40, 220)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(upright, "rgb24")))
        container.mux(stream.encode(None))
    info, segments = decode(turned_by(path, matrix))
    a, b, c, d = matrix
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    shown_x, shown_y = a * x + c * y, b * x + d * y
    shown_x, shown_y = shown_x - shown_x.min(), shown_y - shown_y.min()
    expected = np.zeros((shown_y.max() + 1, shown_x.max() + 1, 3), np.uint8)
    expected[shown_y, shown_x] = upright
    image = segments[0].image
    assert image is not None
    assert (info.width, info.height) == expected.shape[1::-1]
    small = Image.fromarray(expected).resize(image.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(image, np.float32) - np.asarray(small, np.float32)).mean() < 6


def test_nonsense_matrices_change_nothing() -> None:
    assert turn((0, 0, 0, 0)) is None
    assert turn((5, 1, 1, 5)) is None


@pytest.mark.parametrize(
    ("size", "pix_fmt", "matrix", "full"),
    [
        ((160, 96), "yuv420p", None, False),
        ((160, 96), "yuv444p", None, False),
        ((160, 96), "yuvj420p", None, True),
        ((160, 96), "yuv420p", "ITU709", False),
        ((160, 96), "yuv420p", "ITU709", True),
        ((1280, 720), "yuv420p", "unnamed 709", False),
        ((160, 96), "yuv420p10le", None, False),
    ],
)
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255), (128, 128, 128)])
def test_colours_are_right(
    tmp_path: Path,
    size: tuple[int, int],
    pix_fmt: str,
    matrix: str | None,
    full: bool,
    colour: tuple[int, int, int],
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.options = {"preset": "ultrafast", "qp": "8"}
        if matrix == "ITU709":
            stream.codec_context.colorspace = 1
        if full:
            stream.codec_context.color_range = 2
        source = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), colour, np.uint8), "rgb24")
        frame = source.reformat(
            format=pix_fmt,
            dst_colorspace="ITU709" if matrix else "ITU601",
            src_color_range="JPEG",
            dst_color_range="JPEG" if full else "MPEG",
        )
        frame.colorspace = 1 if matrix == "ITU709" else 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image = decode(path)[1][0].image
    assert image is not None
    assert np.abs(np.asarray(image, np.int16) - np.asarray(colour)).max() <= 6


@pytest.mark.parametrize(("aspect", "expected"), [(Fraction(2, 1), (320, 96)), (Fraction(1, 2), (160, 192))])
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, expected: tuple[int, int]) -> None:
    path = write_clip(tmp_path / "a.mp4", [(0.0, "red")], steady(1), aspect=aspect)
    info, segments = decode(path, DecodeOptions(min_side=500))
    assert segments[0].image is not None
    assert (info.width, info.height) == segments[0].image.size == expected


def test_pictures_are_reduced_and_never_enlarged(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [(0.0, "red")], steady(1), size=(640, 480))
    for side, expected in ((100, (267, 200)), (400, (640, 480))):
        image = decode(path, DecodeOptions(min_side=side))[1][0].image
        assert image is not None
        assert image.size == expected


def test_what_the_container_says(tmp_path: Path) -> None:
    tags = {
        "creation_time": "2020-06-07T08:09:10.000000Z",
        "location": "+48.8577-002.2950/",
        "make": "Apple",
        "model": "iPhone 12",
        "title": "Birthday",
    }
    path = write_clip(
        tmp_path / "a.mp4", [(0.0, "red")], steady(2), metadata=tags, mux={"movflags": "use_metadata_tags"}, sound=True
    )
    with zone("UTC"):
        info = DECODER.decode(path, OPTIONS).info
    assert info.taken_at == "2020-06-07T08:09:10"
    assert info.camera == "Apple iPhone 12"
    assert (info.latitude, info.longitude) == (48.8577, -2.295)
    assert info.description == "Birthday"
    assert info.duration_s == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize(
    ("tags", "local"),
    [
        ({"creation_time": "2020-06-07T20:00:00.000000Z"}, None),
        ({"creation_time": "2020-06-07T20:00:00+00:00"}, None),
        ({"creation_time": "2020-06-07T20:00:00Z", "com.apple.quicktime.creationdate": "2020-06-08T05:00:00+0900"},
         "2020-06-08T05:00:00"),
        ({"creation_time": "2020-06-07 20:00:00"}, "2020-06-07T20:00:00"),
        ({"creation_time": "2020-06-07"}, "2020-06-07T00:00:00"),
        ({"date": "2020-06-07"}, "2020-06-07T00:00:00"),
        ({"creation_time": "1904-01-01T00:00:00Z", "date": "2020-06-07"}, "2020-06-07T00:00:00"),
    ],
)  # fmt: skip
def test_dates_are_local(name: str, tags: dict[str, str], local: str | None) -> None:
    with zone(name):
        moment = datetime(2020, 6, 7, 20, tzinfo=timezone.utc).astimezone().replace(tzinfo=None)
        assert _taken_at(tags) == (local or moment.isoformat())
        assert _taken_at({"creation_time": "9999-12-31T23:59:59Z"}), "though some zones have no such time"


@pytest.mark.parametrize("name", ["Asia/Tokyo", "America/New_York"])
def test_a_header_alone_tells_the_date(tmp_path: Path, name: str) -> None:
    tags = {"creation_time": "2020-06-07T20:30:00Z", "title": "Birthday"}
    path = write_clip(tmp_path / "a.mp4", [(0.0, "red")], steady(1), metadata=tags)
    with zone(name):
        info, whole = DECODER.describe(path, OPTIONS), DECODER.decode(path, OPTIONS).info
    assert info.taken_at == whole.taken_at == {"Asia/Tokyo": "2020-06-08T05:30:00"}.get(name, "2020-06-07T16:30:00")
    assert info.description == "Birthday"


def test_a_broken_tail_keeps_what_came_before(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", SCENES, steady(15), moving=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    info, segments = decode(path)
    check_scenes(segments, [scene for scene in SCENES if scene[0] < segments[-1].end_s - 0.5])
    assert 4 < segments[-1].end_s < 14
    assert info.note is not None
    assert "although its header says 15.0 s" in info.note


def test_damage_in_the_middle_loses_only_what_is_damaged(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ts", SCENES, steady(15), format_="mpegts", moving=True, options={"g": "10"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = np.random.default_rng(2).bytes(4000)
    path.write_bytes(data)
    _, segments = decode(path)
    assert {colour_of(segment) for segment in segments} >= {"red", "green", "blue"}
    assert segments[-1].end_s == pytest.approx(15.0, abs=0.5)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        write_sound(container, container.add_stream("aac", rate=8000), 2.0)
    with pytest.raises(MediaError, match="no video in it: it holds only audio"):
        DECODER.decode(path, OPTIONS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"This is a diary and not a video.\n" * 20, "not a video at all"),
        (np.random.default_rng(0).bytes(5000), "not a video at all"),
        (bytes(5000), "not a video at all"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:/etc/hostname\n#EXT-X-ENDLIST\n", "video"),
        (b"ffconcat version 1.0\nfile a.mp4\n", "video"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=reason) as caught:
        decode(path)
    assert str(tmp_path) not in str(caught.value)


def test_a_picture_is_no_video(tmp_path: Path) -> None:
    for format_ in ("PNG", "GIF", "JPEG"):
        Image.new("RGB", (40, 30)).save(tmp_path / "a.mp4", format_)
        with pytest.raises(MediaError):
            decode(tmp_path / "a.mp4")


def test_an_mp4_cut_off_before_its_index_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", SCENES, steady(15))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match="damaged video"):
        decode(path)


def test_missing_files_and_large_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="cannot be read: No such file"):
        decode(tmp_path / "gone.mp4")
    path = write_clip(tmp_path / "a.mp4", [(0.0, "red")], steady(1))
    with pytest.raises(MediaError, match=r"160 × 96 .* raise it with --max-megapixels"):
        decode(path, DecodeOptions(max_megapixels=0.01))


def test_reading_can_be_given_up_at_any_point(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", SCENES, steady(15), moving=True)
    segments = DECODER.decode(path, OPTIONS).segments
    next(segments)
    segments.close()  # type: ignore[attr-defined]
    DECODER.decode(path, OPTIONS)
    path.unlink()


SPAN = st.floats(0, 200, allow_nan=False)


@given(start=SPAN, span=SPAN, interval=st.floats(0.1, 20), frames=st.integers(1, 5000), more=st.booleans())
@example(start=0.0, span=1e12, interval=0.1, frames=3, more=False)
def test_plans_leave_no_gap_longer_than_the_interval(
    start: float, span: float, interval: float, frames: int, more: bool
) -> None:
    group = Group(start, start + span, frames, continues=more)
    plan = plan_group(group, interval, last_wanted=-math.inf, last_look=-math.inf)
    assert plan.decode != "nothing"
    assert plan.wanted[0] == start
    assert len(plan.wanted) <= frames
    if len(plan.wanted) < frames:
        for earlier, later in itertools.pairwise([*plan.wanted, group.end]):
            assert later - earlier <= interval + 0.01


def test_dense_keyframes_are_taken_at_the_interval_and_looked_at_for_cuts() -> None:
    wanted, looks = [], []
    last_wanted = last_look = -math.inf
    for number in range(100):
        group = Group(number * 0.3, (number + 1) * 0.3, 3)
        plan = plan_group(group, 2.0, last_wanted, last_look)
        wanted += plan.wanted
        last_wanted = plan.wanted[-1] if plan.wanted else last_wanted
        if plan.decode == "keyframe":
            looks.append(group.start)
            last_look = group.start
    gaps = np.diff(wanted)
    assert gaps.max() <= 2.0
    assert gaps.min() >= 1.5
    assert np.diff(looks).max() <= 0.9


def frames_of(colours: Sequence[tuple[float, tuple[int, int, int]]]) -> Iterator[tuple[float, Image.Image]]:
    for time, colour in colours:
        yield time, Image.new("RGB", (32, 32), colour)


@given(
    st.lists(
        st.tuples(st.floats(0.01, 3), st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))),
        min_size=1,
        max_size=40,
    )
)
def test_moments_are_contiguous_and_differ_from_their_neighbours(
    steps: list[tuple[float, tuple[int, int, int]]],
) -> None:
    """The oracle: no two neighbours show the same, and every frame looks like the moment it fell into."""
    times = list(itertools.accumulate(step for step, _ in steps))
    merger: Merger[Image.Image] = Merger()
    moments = []
    shown = list(frames_of([(time, colour) for time, (_, colour) in zip(times, steps, strict=True)]))
    for time, image in shown:
        moments += merger.add(time, image, thumbnail(image))
    moments += merger.finish(times[-1] + 1)
    assert moments[0].start == times[0]
    assert moments[-1].end == times[-1] + 1
    for earlier, later in itertools.pairwise(moments):
        assert earlier.end == later.start
        assert frame_difference(thumbnail(earlier.picture), thumbnail(later.picture)) >= 0.025
    for time, image in shown:
        moment = next(one for one in moments if one.start <= time < one.end)
        assert frame_difference(thumbnail(moment.picture), thumbnail(image)) < 0.025


def test_a_dissolve_is_found_when_it_has_ended() -> None:
    chooser: Chooser[int] = Chooser(interval=4.0)
    kept = []
    for number in range(100):
        level = int(np.clip((number - 40) * 10, 0, 200))
        small = thumbnail(Image.new("RGB", (16, 16), (level, level, level)))
        kept += [time for time, _ in chooser.choose(number / 10, number, small)]
    assert kept[0] == 0.0
    assert kept == [0.0, pytest.approx(6.1)]


def sample(name: str, **extra: Any) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        return write_clip(
            path, [(0.0, "red"), (1.0, "blue")], steady(2), moving=True, size=(64, 48), **extra
        ).read_bytes()


SAMPLES = {
    ".mp4": sample("a.mp4"),
    ".mkv": sample("a.mkv"),
    ".avi": sample("a.avi", codec="mpeg4"),
    ".ts": sample("a.ts", format_="mpegts"),
    ".mpg": sample("a.mpg", codec="mpeg2video", format_="mpeg", rate=25),
    ".flv": sample("a.flv", codec="flv"),
}
LENIENT = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def only_media_errors(path: Path) -> None:
    try:
        for segment in DECODER.decode(path, DecodeOptions(min_side=16, max_megapixels=1)).segments:
            assert segment.image is not None
            assert segment.end_s is not None
            assert segment.start_s is not None
            assert 0 <= segment.start_s <= segment.end_s
    except MediaError as error:
        assert str(error)


@LENIENT
@given(data=st.binary(max_size=600), suffix=st.sampled_from(sorted(VideoDecoder().suffixes)))
def test_arbitrary_bytes_give_a_reason(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    only_media_errors(path)


@settings(LENIENT, max_examples=150)
@given(
    kind=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), max_size=6),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
    ends=st.booleans(),
)
def test_damaged_files_give_moments_or_a_reason(
    tmp_path: Path, kind: str, changes: list[tuple[float, bytes]], keep: float, ends: bool
) -> None:
    data = bytearray(SAMPLES[kind])
    for place, replacement in changes:
        # Headers stand at the beginning; the index of an MP4 at the end.
        start = int((1 - place**3 if ends else place**3) * max(0, len(data) - 8))
        data[start : start + len(replacement)] = replacement
    path = tmp_path / f"a{kind}"
    path.write_bytes(data[: int(len(data) * keep)])
    only_media_errors(path)


def real_video(name: str) -> Path:
    folder = os.environ.get("MMSEARCH_TEST_DATA")
    path = Path(folder or "") / "video" / name
    if not folder or not path.exists():
        pytest.skip("needs real videos: set MMSEARCH_TEST_DATA to a folder with video/")
    return path


@pytest.mark.parametrize(
    ("name", "size"), [("rot_0.mov", (568, 320)), ("rot_90.mov", (320, 568)), ("rot_270.mov", (320, 568))]
)
def test_real_turned_recordings(name: str, size: tuple[int, int]) -> None:
    info, segments = decode(real_video(name), DecodeOptions(min_side=224))
    assert segments[0].image is not None
    assert (info.width, info.height) == segments[0].image.size == size


def test_real_scenes() -> None:
    """A title, a dissolve that ends before 6 s, a cut at 8.0 s."""
    _, segments = decode(real_video("nasa.mp4"))
    starts = [segment.start_s for segment in segments]
    assert any(start is not None and abs(start - 8.01) < 0.1 for start in starts)
    assert any(start is not None and 5.2 <= start <= 6.1 for start in starts)


def test_a_damaged_stream_gives_what_it_has() -> None:
    info, segments = decode(real_video("corrupted.mp4"))
    assert segments
    assert info.note is not None


def test_nothing_is_written_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(SAMPLES[".mp4"][:-400] + io.BytesIO(bytes(400)).getvalue())
    only_media_errors(path)
    assert capfd.readouterr() == ("", "")

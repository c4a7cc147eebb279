"""The pipeline between the readers and the encoder: bounded in bytes, timed, and honest about what limits it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.core.types import Report
from mmsearch.ingest import IngestOptions
from mmsearch.models.encoders.base import FloatArray
from mmsearch.pipeline.executor import BoundedQueue
from tests.support.colours import ColourEncoder, save_colour


class Slow(ColourEncoder):
    """Takes its time in one of the stages."""

    def __init__(self, prepare_s: float, encode_s: float) -> None:
        super().__init__("slow")
        self._prepare_s, self._encode_s = prepare_s, encode_s

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        time.sleep(self._prepare_s)
        return super().prepare_image(image)

    def encode_prepared(self, inputs: np.ndarray) -> FloatArray:
        time.sleep(self._encode_s)
        return super().encode_prepared(inputs)


@pytest.mark.parametrize(("prepare_s", "encode_s", "limit"), [(0.05, 0, "decode"), (0, 0.15, "encode")])
def test_the_report_names_what_limited_the_run(
    photos: Path, tmp_path: Path, prepare_s: float, encode_s: float, limit: str
) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=Slow(prepare_s, encode_s)) as index:
        report = index.add(photos, options=IngestOptions(readers=1))
    assert report.limited_by == limit
    assert report.seconds.keys() >= {"walk", "hash", "decode", "prepare", "wait", "encode", "commit", "total"}


def test_nothing_done_is_limited_by_nothing() -> None:
    assert Report().limited_by is None


def test_readers_stay_inside_the_budget(tmp_path: Path) -> None:
    """Inputs of 192 bytes and a budget of one byte: they come through one by one."""
    for number in range(30):
        save_colour(tmp_path / "photos" / f"{number}.png", "red", seed=number)
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        report = index.add(tmp_path / "photos", options=IngestOptions(readers=8, memory_mb=1e-6))
    assert report.indexed == 30


@pytest.mark.parametrize("memory_mb", [0.003, 0.006])
def test_what_waits_for_a_slow_encoder_never_exceeds_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_mb: float
) -> None:
    """Forty inputs of 192 bytes and their messages want about 90 kB; the budget is a fraction of that, and is used."""
    for number in range(40):
        save_colour(tmp_path / "photos" / f"{number}.png", "red", seed=number)
    held: list[int] = []
    put = BoundedQueue.put

    def watched(queue: BoundedQueue[object], thing: object, size: int) -> bool:
        done = put(queue, thing, size)
        held.append(queue._held)
        return done

    monkeypatch.setattr(BoundedQueue, "put", watched)
    with Index.open(tmp_path / "index", create=True, encoder=Slow(0, 0.01)) as index:
        report = index.add(tmp_path / "photos", options=IngestOptions(readers=4, memory_mb=memory_mb))
    assert report.indexed == 40
    assert memory_mb * 1e6 / 2 < max(held) <= memory_mb * 1e6


@pytest.mark.parametrize("options", [{"readers": 0}, {"memory_mb": 0}, {"max_megapixels": -1}, {"frame_interval_s": 0}])
def test_senseless_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        IngestOptions(**options)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 6), st.integers(1, 40), st.integers(1, 4))
def test_everything_comes_through_and_the_bound_holds(sizes: list[int], items: int, size: int, threads: int) -> None:
    queue: BoundedQueue[int] = BoundedQueue(items=items, size=size)
    todo, lock = iter(range(len(sizes))), threading.Lock()

    def produce() -> None:
        while True:
            with lock:
                number = next(todo, None)
            if number is None:
                return
            queue.put(number, sizes[number])
            waiting = list(queue._waiting)
            assert len(waiting) <= items
            assert len(waiting) <= 1 or sum(one for _, one in waiting) <= size

    producers = [threading.Thread(target=produce) for _ in range(threads)]
    for producer in producers:
        producer.start()
    taken = [queue.get() for _ in sizes]
    for producer in producers:
        producer.join()
    assert sorted(taken) == list(range(len(sizes)))
    assert queue._held == 0


def test_closing_lets_go_who_waits_for_room() -> None:
    queue: BoundedQueue[int] = BoundedQueue(items=1, size=1)
    assert queue.put(1, 1)
    results: list[bool] = []
    waiting = threading.Thread(target=lambda: results.append(queue.put(2, 1)))
    waiting.start()
    queue.close()
    waiting.join(5)
    assert results == [False]


def test_another_frame_interval_reads_videos_again_and_photos_not(index: Index, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    with av.open(str(tmp_path / "media" / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(0, 240, 8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    save_colour(tmp_path / "media" / "photo.png", "red")
    index.add(tmp_path / "media")
    assert index.add(tmp_path / "media").unchanged == 2
    report = index.add(tmp_path / "media", options=IngestOptions(frame_interval_s=0.5))
    assert (report.updated, report.unchanged) == (1, 1)
    assert index.verify().clean

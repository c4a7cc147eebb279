"""Moments of one video or recording: all of them, where they are, in the order of their relevance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.query.moments import moment_around, moments_of
from mmsearch.store.base import Segment
from tests.support.colours import ColourEncoder, save_colour
from tests.support.sound import save_video


def frames(count: int) -> list[Segment]:
    return [Segment(i, 0, "/v.mp4", "video", i, float(i), float(i + 1)) for i in range(count)]


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40))
def test_stretches_are_apart_and_hold_all_good_frames(values: list[float]) -> None:
    scores, segments = np.array(values, np.float32), frames(len(values))
    found = moments_of(segments, scores)
    assert found[0][0] == int(np.argmax(scores)) or scores[found[0][0]] == scores.max()
    bests = [float(scores[place]) for place, _ in found]
    assert bests == sorted(bests, reverse=True)
    enough = (float(scores.max()) + float(scores.mean())) / 2
    inside = [False] * len(values)
    for place, moment in found:
        run = range(int(moment.start_s), int(moment.end_s))
        assert place in run and moment.best_s == float(place)
        assert not any(inside[i] for i in run)  # no frame is in two
        for i in run:
            inside[i] = True
    assert all(inside[i] == (scores[i] >= enough) for i in range(len(values)) if abs(scores[i] - enough) > 1e-4)
    if scores.max() - scores.mean() > 1e-3:
        assert found[0][1] == moment_around(segments, scores, found[0][0])


def test_segments_without_times_have_no_moments() -> None:
    assert moments_of([], np.zeros(0, np.float32)) == []
    assert moments_of([Segment(0, 0, "/a.jpg", "image", 0)], np.ones(1, np.float32)) == []


@pytest.fixture
def filled(tmp_path: Path, encoder: ColourEncoder) -> Index:
    colours = ("red", "blue", "red", "green", "red")
    save_video(tmp_path / "films" / "a.mkv", colours, subtitles=[(3.5, 5.0, "a violet sentence")])
    save_colour(tmp_path / "films" / "red.png", "red")
    with Index.open(tmp_path / "index", create=True, encoder=encoder) as opened:
        assert not opened.add(tmp_path / "films").skipped
        yield opened


def test_all_moments_of_a_video_are_found(filled: Index, tmp_path: Path) -> None:
    film = tmp_path / "films" / "a.mkv"
    found = filled.moments(film, "red")
    assert {hit.path for hit in found} == {str(film)} and [hit.rank for hit in found] == list(range(1, len(found) + 1))
    red = [hit for hit in found if hit.modality == "video"]
    assert sorted((round(hit.start_s or 0), round(hit.end_s or 0)) for hit in red) == [(0, 3), (6, 9), (12, 15)]
    assert [hit.score for hit in red] == sorted((hit.score for hit in red), reverse=True)
    assert len(filled.moments(film, "red", k=2)) == 2
    [first] = filled.search("red type:video", k=1)
    assert (first.start_s, first.end_s) in [(hit.start_s, hit.end_s) for hit in red]
    [green] = [hit for hit in filled.moments(film, "green") if hit.modality == "video"]
    assert round(green.start_s or 0) == 9
    by_picture = filled.moments(film, image=tmp_path / "films" / "red.png")
    assert len(by_picture) == 3 and by_picture[0].modality == "video"


def test_what_is_said_is_a_moment_too(filled: Index, tmp_path: Path) -> None:
    found = filled.moments(tmp_path / "films" / "a.mkv", "violet sentence")
    [said] = [hit for hit in found if hit.modality == "speech"]
    assert said.text == "a violet sentence" and said.start_s == 3.5


def test_what_has_no_moments(filled: Index, tmp_path: Path) -> None:
    assert filled.moments(tmp_path / "films" / "red.png", "red") == []
    with pytest.raises(UsageError, match="not in the index"):
        filled.moments(tmp_path / "none.mp4", "red")
    with pytest.raises(UsageError, match="only filters"):
        filled.moments(tmp_path / "films" / "a.mkv", "type:video")

"""Sounds by their content, through the whole of an index. The encoder hears one thing: how high a tune is."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import EncoderError
from mmsearch.core.types import EncoderSpec
from mmsearch.ingest import IngestOptions
from mmsearch.media.sound.containers import windows_of
from mmsearch.models.sounds.base import FloatArray, Samples, SoundEncoder
from mmsearch.query.sounds import GENERIC, MOST, share_of_query
from mmsearch.store.local import migrations
from tests.support.colours import ColourEncoder, die_at, save_colour
from tests.support.program import run_program
from tests.support.sound import save_sound, save_video, tune

PITCHES = {"low": 220.0, "middle": 880.0, "high": 3520.0}
MODEL = "tests.media.sound.test_sounds_in_an_index:PitchEncoder"


class PitchEncoder(SoundEncoder):
    """An axis for each pitch, one for generic sounds, and one for everything else."""

    heard = 0

    def __init__(self) -> None:
        self.spec = EncoderSpec(MODEL, "5" * 64, 5, "48000 Hz", logit_scale=20.0)
        self.rate, self.window_s = 48_000, 10.0

    def encode_sounds(self, windows: list[Samples]) -> FloatArray:
        rows = np.zeros((len(windows), 5), np.float32)
        for row, samples in zip(rows, windows, strict=True):
            type(self).heard += 1
            frequency = np.argmax(np.abs(np.fft.rfft(samples))) * self.rate / len(samples)
            near = [abs(np.log2(max(frequency, 1.0) / hertz)) < 0.5 for hertz in PITCHES.values()]
            row[near.index(True) if True in near else 3] = 1
        return rows

    def encode_texts(self, texts: list[str]) -> FloatArray:
        rows = np.zeros((len(texts), 5), np.float32)
        for row, text in zip(rows, texts, strict=True):
            places = [n for n, name in enumerate(PITCHES) if name in text.split()]
            row[places[0] if places else 3 + (text not in GENERIC)] = 1
        return rows


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    sound = np.concatenate([tune(20.0, PITCHES["low"]), tune(5.0, PITCHES["high"])])
    save_video(folder / "film.mp4", ["red", "blue"], 12.5, sound=sound)
    save_sound(folder / "song.flac", tune(3.0, PITCHES["middle"]))
    save_video(folder / "silent.mp4", ["green"])
    save_colour(folder / "high.png", "green")
    return folder


@pytest.fixture
def index(tmp_path: Path, library: Path) -> Index:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as opened:
        PitchEncoder.heard = 0
        opened.report = opened.add(library, options=IngestOptions(sounds=MODEL))  # type: ignore[attr-defined]
        yield opened  # type: ignore[misc]


def test_moments_are_found_by_how_they_sound(index: Index, library: Path) -> None:
    report = index.report  # type: ignore[attr-defined]
    assert report.sounding == 2 and not report.unsounded and not report.skipped
    assert PitchEncoder.heard == 4
    [hit, *_] = index.search("high type:audio")
    assert (hit.path, hit.modality, hit.start_s) == (str(library / "film.mp4"), "audio", 20.0)
    assert hit.end_s == pytest.approx(25.0, abs=0.3) and hit.relevance == pytest.approx(MOST, rel=1e-3) and hit.match
    assert hit.as_json()["parts"] == {"similarity": 1.0}
    assert hit.document is not None and hit.document.path == hit.path
    assert [hit.path for hit in index.search("middle type:audio", k=1)] == [str(library / "song.flac")]
    assert {hit.path for hit in index.search("low type:audio")} == {str(library / n) for n in ("film.mp4", "song.flac")}
    assert index.status()["sounds"] == {"encoder": MODEL, "heard": 3, "of": 3, "failed": 0, "windows": 4}
    assert index.verify().clean


def test_they_stand_beside_pictures_where_they_fit(index: Index, library: Path) -> None:
    beside = index.search("a high tune", k=9)
    assert [(hit.path, hit.start_s) for hit in beside if hit.modality == "audio"] == [(str(library / "film.mp4"), 20.0)]
    assert not any(hit.modality == "audio" for hit in index.search("something else", k=9))
    assert not any(hit.modality == "audio" for hit in index.search("a high tune -type:audio", k=9))
    assert not any(hit.modality == "audio" for hit in index.search("a high tune type:video", k=9))
    assert not any(hit.modality == "audio" for hit in index.search("a high tune -red", k=9))
    values = [hit.relevance for hit in beside if hit.relevance is not None]
    assert values == sorted(values, reverse=True) and [hit.rank for hit in beside] == list(range(1, len(beside) + 1))


def test_filters_hold(index: Index, library: Path) -> None:
    assert [hit.path for hit in index.search("high type:audio path:song*", k=9)] == [str(library / "song.flac")]
    assert index.search("high type:audio duration:>1m") == []
    assert len(index.search("high type:audio", k=9, min_relevance=0.1)) == 1


def test_explain_says_that_the_sound_matched(index: Index, library: Path) -> None:
    why = index.explain("a high tune", library / "film.mp4", heat_map=False)
    assert why.sounds is not None and (why.sounds.start_s, why.sounds.parts["similarity"]) == (20.0, 1.0)
    assert index.explain("a high tune", library / "high.png", heat_map=False).sounds is None


def test_nothing_is_heard_twice(index: Index, library: Path) -> None:
    before = PitchEncoder.heard
    (library / "song.flac").rename(library / "renamed.flac")
    (library / "copy.flac").write_bytes((library / "renamed.flac").read_bytes())
    assert index.add(library, options=IngestOptions(sounds=True)).sounding == 0 and PitchEncoder.heard == before
    assert {hit.path for hit in index.search("middle type:audio", k=2)} == {
        str(library / "renamed.flac"), str(library / "copy.flac"),
    }  # fmt: skip
    (library / "film.mp4").unlink()
    index.add(library)
    assert str(library / "film.mp4") not in {hit.path for hit in index.search("high type:audio", k=9)}
    assert index.status()["sounds"]["windows"] == 1 and index.verify().clean


def test_an_index_that_was_made_without_is_completed(tmp_path: Path, library: Path) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(library)
        assert index.status()["sounds"] is None and index.search("high type:audio") == []
        assert index.add(library, options=IngestOptions(sounds=PitchEncoder())).sounding == 2
        assert index.search("high type:audio", k=1)[0].start_s == 20.0


def test_an_index_of_the_version_before_is_completed(tmp_path: Path, library: Path) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(library)
    with contextlib.closing(sqlite3.connect(tmp_path / "index" / "catalogue.sqlite")) as sql, sql:
        for table in ("sounds", "listened", "sound_encoder"):
            sql.execute(f"DROP TABLE {table}")
        sql.execute(f"PRAGMA user_version = {migrations.STEPS.index(migrations.m016_sounds)}")
    with Index.open(tmp_path / "index", encoder=ColourEncoder()) as index:
        assert index.search("green", k=1) and index.status()["sounds"] is None
        report = index.add(library, options=IngestOptions(sounds=MODEL))
        assert (report.sounding, report.indexed, report.unchanged) == (2, 0, 4)
        assert index.search("high type:audio", k=1)[0].start_s == 20.0 and index.verify().clean


def test_sounds_of_another_encoder_are_dropped(index: Index, library: Path) -> None:
    other = PitchEncoder()
    other.spec = EncoderSpec(MODEL, "6" * 64, 5, "48000 Hz", logit_scale=20.0)
    assert index.add(library, options=IngestOptions(sounds=other)).sounding == 2
    with pytest.raises(EncoderError, match="run `mmsearch index --sounds` again"):
        index.search("high type:audio")
    green = {str(library / name) for name in ("high.png", "silent.mp4")}
    assert index.search("green", k=1)[0].path in green, "everything else is found all the same"


def test_a_changed_vector_is_noticed_and_mended(tmp_path: Path, library: Path) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(library, options=IngestOptions(sounds=MODEL))
    with contextlib.closing(sqlite3.connect(tmp_path / "index" / "catalogue.sqlite")) as sql, sql:
        sql.execute("UPDATE sounds SET vector = zeroblob(10) WHERE start_s = 20")
    with Index.open(tmp_path / "index", encoder=ColourEncoder()) as index:
        found = [(one.kind, one.where) for one in index.verify().differences]
        assert ("bad sounds", "film.mp4") in found, found
        assert index.verify(mend=True).clean
        assert index.add(library, options=IngestOptions(sounds=True)).sounding == 1
        assert index.search("high type:audio", k=1)[0].start_s == 20.0


def _dying(folder: str, library: str, when: str) -> None:
    from mmsearch.store.local import commit

    die_at(commit, "put_sounds", when, 1)
    with Index.open(folder, encoder=ColourEncoder()) as index:
        index.add(library, options=IngestOptions(sounds=PitchEncoder()))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_loses_nothing(tmp_path: Path, library: Path, when: str) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(library)
    arguments = (str(tmp_path / "index"), str(library), when)
    process = multiprocessing.get_context("spawn").Process(target=_dying, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -9
    with Index.open(tmp_path / "index", encoder=ColourEncoder()) as index:
        assert index.verify().clean and index.status()["sounds"]["windows"] == 0
        assert index.add(library, options=IngestOptions(sounds=PitchEncoder())).sounding == 2
        assert index.status()["sounds"]["windows"] == 4 and index.verify().clean


def test_without_the_model_it_is_one_sentence(tmp_path: Path, library: Path) -> None:
    empty = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    done = run_program("index", library, "--index", tmp_path / "x", "--sounds", code=2, **empty)
    assert "mmsearch models pull hf:laion/clap-htsat-unfused" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "x").exists()


def test_a_share_of_one_is_what_nothing_else_could_be() -> None:
    query, other = np.eye(4, dtype=np.float32)[:2]
    assert share_of_query(query, np.stack([other]), query, 20.0) > 0.999
    assert share_of_query(query, np.stack([other]), other, 20.0) < 0.001
    assert share_of_query(query, np.stack([query, other]), query, 20.0) > 0.999, "it is not held against itself"
    assert share_of_query(query, np.stack([other] * 9), (query + other) / np.sqrt(2).astype(np.float32), 20.0) == (
        pytest.approx(0.1, abs=1e-6)
    )
    assert len(set(GENERIC)) == len(GENERIC)


def test_windows_are_cut_where_they_should() -> None:
    blocks = [np.full(700, 0.5, np.float32), np.full(1600, 0.5, np.float32), np.zeros(700, np.float32)]
    assert [(start, len(part)) for start, part in windows_of(blocks, 100, 10.0)] == [(0.0, 1000), (10.0, 1000),
                                                                                      (20.0, 1000)]  # fmt: skip
    assert [start for start, _ in windows_of([np.zeros(1000, np.float32), np.ones(1050, np.float32)], 100, 10.0)] == [
        10.0
    ]
    assert [len(part) for _, part in windows_of([np.ones(20, np.float32)], 100, 10.0)] == [20]
    [(_, odd)] = windows_of([np.array([np.nan, np.inf, 0.5], np.float32)], 100, 10.0)
    assert odd.tolist() == [0.0, 1.0, 0.5]

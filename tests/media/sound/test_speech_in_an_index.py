"""Recordings and what is said in videos, through the whole of an index: subtitles, tags, filters, changes."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.query.spoken import MOST, relevance_of_speech, time_of_words
from mmsearch.store.base import Speech
from tests.cli.test_query import run
from tests.support.colours import ColourEncoder, die_at, save_colour
from tests.support.sound import save_sound, save_video, srt

SAID = [(0.5, 2.0, "The harbour is green today."), (4.0, 5.5, "A violet boat lies there.")]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    save_video(folder / "film.mp4", ["red", "blue"])
    (folder / "film.en.srt").write_text(srt(SAID), encoding="utf-8")
    save_sound(folder / "song.mp3", 3.0, title="Green Hills", artist="The Walkers", album="Outside", date="2004")
    save_sound(folder / "plain.wav", 2.0)
    save_colour(folder / "green.png", "green")
    return folder


def opened(tmp_path: Path, library: Path) -> Index:
    index = Index.open(tmp_path / "index", create=True, encoder=ColourEncoder())
    index.add(library)
    return index


def test_recordings_are_documents_with_their_tags(tmp_path: Path, library: Path) -> None:
    with opened(tmp_path, library) as index:
        assert {hit.path for hit in index.search("type:sound")} == {str(library / n) for n in ("song.mp3", "plain.wav")}
        assert [hit.path for hit in index.search('artist:walkers album:"outside" title:hills')] == [
            str(library / "song.mp3")
        ]
        assert index.search("type:sound before:2004-02 after:2003-12")[0].date == "2004-01-01T00:00:00"
        assert index.search('type:sound "Green Hills"')[0].path == str(library / "song.mp3")
        assert index.status()["documents"]["sound"] == 2
        assert index.search("duration:2.5s..3.5s type:sound")[0].path == str(library / "song.mp3")


def test_cover_art_is_no_picture(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    save_sound(folder / "song.mp3", 1.0, cover=True, title="Tune")
    with opened(tmp_path, folder) as index:
        assert index.status()["documents"] | {"image": 0, "video": 0, "sound": 1} == index.status()["documents"]
        assert index.search("red") == []


@pytest.mark.parametrize(
    "name", ["a.mp3", "a.m4a", "a.aac", "a.wav", "a.flac", "a.ogg", "a.opus", "a.wma", "a.mka", "a.aiff"]
)
def test_every_format_is_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    save_sound(folder / name, 1.5)
    with opened(tmp_path, folder) as index:
        report = index.add(folder)
        assert not report.skipped and report.unchanged == 1
        seconds = sqlite3.connect(tmp_path / "index" / "catalogue.sqlite").execute("SELECT duration_s FROM contents")
        assert seconds.fetchone()[0] == pytest.approx(1.5, abs=0.25)


@pytest.mark.parametrize("data", [b"", b"nothing of that kind" * 100])
def test_a_broken_recording_is_skipped_with_a_reason(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    (folder / "a.mp3").write_bytes(data)
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        report = index.add(folder)
        assert len(report.skipped) == 1 and report.skipped[0].reason


def test_pictures_and_spoken_moments_are_found_together(tmp_path: Path, library: Path) -> None:
    with opened(tmp_path, library) as index:
        hits = index.search("green harbour", k=10)
        spoken = [hit for hit in hits if hit.modality == "speech"]
        assert [hit.text for hit in spoken] == ["The harbour is green today."]
        assert (spoken[0].start_s, spoken[0].end_s, spoken[0].language) == (0.5, 2.0, "en")
        assert str(library / "green.png") in {hit.path for hit in hits if hit.modality == "image"}
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        known = [hit.relevance for hit in hits if hit.relevance is not None]
        assert "speech" not in {hit.modality for hit in index.search("green harbour type:image,video")}
        assert "speech" not in {hit.modality for hit in index.search("green harbour -type:speech")}
        assert {hit.modality for hit in index.search("-type:speech red", k=1)} == {"video"}, "it stays a video"
        assert {hit.modality for hit in index.search("green harbour type:speech")} == {"speech"}
        assert known


def test_exact_words_and_languages(tmp_path: Path, library: Path) -> None:
    with opened(tmp_path, library) as index:
        [hit] = index.search('said:"violet boat"')
        assert (hit.path, hit.start_s, hit.end_s) == (str(library / "film.mp4"), 4.0, 5.5)
        assert index.search('said:"boat violet"') == [] and index.search("said:green lang:de") == []
        assert len(index.search("lang:en")) == 2, "every passage, in the order of time"
        assert [hit.start_s for hit in index.search("lang:en")] == [0.5, 4.0]
        assert index.search("lang:en violet")[0].start_s == 4.0, "the nearest first"
        assert index.search("said:violet type:image") == []
        assert {Path(hit.path).name for hit in index.search("-said:violet type:video,sound,image", k=9)} == {
            "green.png", "song.mp3", "plain.wav",
        }  # fmt: skip
        with pytest.raises(UsageError, match="no code of a language"):
            index.search("lang:German")


def test_words_that_are_said_speak_for_no_picture(tmp_path: Path, library: Path) -> None:
    with opened(tmp_path, library) as index:
        for hit in index.search("harbour", k=9, modality=("image", "video")):
            assert hit.parts["words"] == 0


def test_explain_tells_which_of_both_matched(tmp_path: Path, library: Path) -> None:
    with opened(tmp_path, library) as index:
        why = index.explain("harbour", library / "film.mp4", heat_map=False)
        assert why.modality == "video" and why.said is not None
        assert (why.said.text, why.said.start_s) == ("The harbour is green today.", 0.5)
        assert why.said_words == ("harbour",)
        assert index.explain("red", library / "green.png", heat_map=False).said is None


def test_subtitles_that_change_come_or_go(tmp_path: Path, library: Path) -> None:
    with opened(tmp_path, library) as index:
        encoded = index.encoder().encoded_images  # type: ignore[attr-defined]
        assert index.add(library).subtitled == 0
        subtitles = library / "film.en.srt"
        subtitles.write_text(srt([(1.0, 2.0, "Nobody knows the orange house.")]), encoding="utf-8")
        assert index.add(library).subtitled == 1
        assert [hit.text for hit in index.search("lang:en")] == ["Nobody knows the orange house."]
        subtitles.rename(library / "film.de.vtt")
        (library / "film.de.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nEin Haus am Meer.\n", encoding="utf-8")
        index.add(library)
        assert [hit.text for hit in index.search("said:Haus lang:de")] == ["Ein Haus am Meer."]
        (library / "film.de.vtt").unlink()
        index.add(library)
        assert index.search("type:speech") == []
        assert index.encoder().encoded_images == encoded, "no frame is embedded again"  # type: ignore[attr-defined]
        assert index.verify().clean


def test_broken_subtitles_are_told_and_the_film_stays(tmp_path: Path, library: Path) -> None:
    (library / "film.en.srt").write_bytes(b"no times here")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        report = index.add(library)
        assert [Path(one.path).name for one in report.unheard] == ["film.mp4"]
        assert "film.en.srt" in report.unheard[0].reason and not report.skipped
        assert not index.add(library).unheard, "told once"


def test_subtitles_without_a_film_are_accounted_for(tmp_path: Path) -> None:
    folder = tmp_path / "lonely"
    folder.mkdir()
    (folder / "film.srt").write_text(srt(SAID), encoding="utf-8")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        [skip] = index.add(folder).skipped
        assert "no video or recording of that name" in skip.reason


def test_tracks_inside_of_a_film(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    save_video(folder / "film.mkv", ["red", "blue"], subtitles=SAID, language="ger")
    with opened(tmp_path, folder) as index:
        assert [(hit.start_s, hit.end_s, hit.text) for hit in index.search("lang:de")] == SAID


def test_a_copy_shares_what_is_said(tmp_path: Path, library: Path) -> None:
    (library / "copy.mp4").write_bytes((library / "film.mp4").read_bytes())
    with opened(tmp_path, library) as index:
        assert {Path(hit.path).name for hit in index.search("said:violet")} == {"copy.mp4", "film.mp4"}
        assert index.verify().clean


def test_another_encoder_is_given_the_passages_too(tmp_path: Path, library: Path) -> None:
    with opened(tmp_path, library) as index:
        index.switch(ColourEncoder("others"))
        assert index.search("said:violet")[0].start_s == 4.0
        assert index.search("type:speech violet")[0].text == "A violet boat lies there."
        assert index.verify().clean


def test_json_csv_and_the_command_line(tmp_path: Path, library: Path) -> None:
    with opened(tmp_path, library) as index:
        place = index.path
    said = ("query", "said:violet", "--index", place)
    hit = json.loads(run(*said, "--json", home=tmp_path).stdout)
    assert (hit["modality"], hit["language"], hit["start_s"], hit["text"]) == (
        "speech", "en", 4.0, "A violet boat lies there.",
    )  # fmt: skip
    assert "A violet boat lies there." in run(*said, "--csv", home=tmp_path).stdout
    assert "0:04.0–0:05.5" in run(*said, home=tmp_path).stdout
    assert "2 passages in 1 of 3 videos and recordings" in run("status", "--index", place, home=tmp_path).stdout


def test_words_that_are_said_make_a_passage_relevant() -> None:
    assert relevance_of_speech(None, 0.0, 3) is None and relevance_of_speech(1.0, 0.0, 3) == pytest.approx(MOST)
    one, many = relevance_of_speech(0.5, 1.0, 1) or 0, relevance_of_speech(0.5, 1.0, 12) or 0
    assert one < 0.1 < 0.5 < many < 1
    assert (relevance_of_speech(0.9, 0.0, 3) or 0) < 0.04 < 0.08 < (relevance_of_speech(0.999, 0.0, 3) or 0)


def test_a_moment_begins_with_its_words_where_their_times_are_known() -> None:
    speech = Speech("en", ((" We", 1.0, 1.2), (" go,", 1.3, 1.5), (" Now!", 1.6, 2.0)))
    assert time_of_words(speech, ["go now"], 1.0) == 1.3 and time_of_words(speech, ["now go"], 1.0) == 1.0
    assert time_of_words(None, ["go"], 7.0) == 7.0


def _dying(folder: str, library: str, when: str, call: int) -> None:
    from mmsearch.store.local import commit

    die_at(commit, "put_heard", when, call)
    with Index.open(folder, create=True, encoder=ColourEncoder()) as index:
        index.add(library)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_passages_are_committed(tmp_path: Path, library: Path, when: str) -> None:
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(
        target=_dying, args=(str(tmp_path / "index"), str(library), when, 1)
    )
    process.start()
    process.join()
    assert process.exitcode == -9
    with Index.open(tmp_path / "index", encoder=ColourEncoder()) as index:
        assert index.verify().clean or index.verify(mend=True).clean
        index.add(library)
        assert len(index.search("lang:en")) == 2 and index.verify().clean

"""The real recogniser: English and German speech of espeak-ng, silence and noise, through the index and the
commands.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.ingest import IngestOptions
from mmsearch.media.sound.passages import Cue
from mmsearch.models.speech import SpeechRecogniser, open_recogniser
from mmsearch.models.speech.base import VoicedPart
from mmsearch.models.speech.whisper import without_repetitions
from mmsearch.pipeline.compute import Recognition
from mmsearch.pipeline.speech import passages_of, question_of
from tests.cli.test_query import run
from tests.support import sound
from tests.support.colours import ColourEncoder
from tests.support.whisper_model import SHA256, digest_of, whisper_base

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recogniser() -> SpeechRecogniser:
    return open_recogniser(str(whisper_base()), threads=2)


def blocks(samples: np.ndarray) -> list[np.ndarray]:
    return [samples[start : start + 10 * sound.RATE] for start in range(0, len(samples), 10 * sound.RATE)]


def heard(recogniser: SpeechRecogniser, samples: np.ndarray) -> list[Cue]:
    hear = Recognition(recogniser)
    cues = [cue for part in recogniser.voiced(blocks(samples)) for row in hear([part]) for cue in row["cues"]]
    return [
        Cue(one.start_s, one.end_s, one.text, one.language) for one in passages_of(cues, 64, lambda t: len(t.split()))
    ]


def test_the_model_is_the_one_that_is_meant() -> None:
    assert digest_of(whisper_base() / "model.bin") == SHA256


def test_sentences_have_their_times(recogniser: SpeechRecogniser) -> None:
    said = ["My sister bought a red bicycle last week.", "We should close the window before the storm arrives."]
    parts, starts = [sound.silence(40.0)], []
    for text in said:
        starts.append(sum(map(len, parts)) / sound.RATE)
        parts += [sound.spoken(text), sound.silence(35.0)]
    found = heard(recogniser, np.concatenate(parts))
    assert [one.text for one in found] == said and {one.language for one in found} == {"en"}
    for one, start in zip(found, starts, strict=True):
        assert abs(one.start_s - start) <= 1.0


def test_nothing_is_made_up(recogniser: SpeechRecogniser) -> None:
    beat = sound.tune(30.0, 330.0) * (np.sin(np.arange(30 * sound.RATE) / 4000) > 0)
    for quiet in (sound.silence(60.0), sound.noise(60.0), 5 * sound.noise(30.0, 1), sound.tune(60.0), beat):
        assert heard(recogniser, quiet) == []


def test_what_a_model_repeats_is_left_out() -> None:
    def cue(text: str) -> Cue:
        return Cue(0.0, 1.0, text)

    kept = without_repetitions(
        [
            cue("Good morning."),
            cue("Thank you all."),
            cue("Thank you all."),
            cue("you you you you you"),
            cue("Bye bye."),
        ]
    )
    assert [one.text for one in kept] == ["Good morning.", "Thank you all.", "Bye bye."]


def test_an_index_is_completed_and_nothing_is_heard_twice(tmp_path: Path, recogniser: SpeechRecogniser) -> None:
    folder = tmp_path / "talks"
    folder.mkdir()
    speech = np.concatenate(
        [sound.silence(2.0), sound.spoken("The library has a large collection of old maps."), sound.silence(2.0)]
    )
    sound.save_video(folder / "film.mp4", ["red", "blue"], sound=speech)
    sound.save_sound(folder / "silent.wav", sound.silence(3.0))
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        assert index.add(folder).recognised == 0 and index.search("type:speech") == []
        report = index.add(folder, options=IngestOptions(speech=recogniser))
        assert (report.recognised, report.unchanged, report.unheard) == (1, 2, ())
        [hit] = index.search("said:collection lang:en")
        assert Path(hit.path).name == "film.mp4" and 2.5 <= hit.start_s <= 4.5, "when the word is said"
        (tmp_path / "moved").mkdir()
        (folder / "film.mp4").rename(folder / "renamed.mp4")
        assert index.add(folder, options=IngestOptions(speech=recogniser)).recognised == 0, "known by its content"
        assert Path(index.search("said:collection")[0].path).name == "renamed.mp4"
        (folder / "renamed.srt").write_text(sound.srt([(1.0, 2.0, "An orange house.")]), encoding="utf-8")
        index.add(folder)
        assert index.search("said:collection") == [] and len(index.search("said:orange")) == 1, "subtitles are truer"
        assert index.verify().clean
    # The commands know what the index knows, and hear what it does not.
    place = ("--index", tmp_path / "index")
    done = run("transcribe", folder / "renamed.mp4", *place, "-o", tmp_path / "out", home=tmp_path)
    assert "1 passages, from the index" in done.stdout
    assert "An orange house." in (tmp_path / "out" / "renamed.srt").read_text()
    run("transcribe", folder / "renamed.mp4", *place, "--anew", "--speech-model", whisper_base(), "--format", "jsonl",
        "-o", tmp_path / "out", home=tmp_path)  # fmt: skip
    row = json.loads((tmp_path / "out" / "renamed.jsonl").read_text().splitlines()[0])
    assert "maps" in row["text"] and row["language"] == "en" and row["words"]
    again = run("transcribe", folder / "renamed.mp4", *place, "-o", tmp_path / "out", home=tmp_path, code=2)
    assert "is there already" in again.stderr


def test_a_question_is_understood(recogniser: SpeechRecogniser) -> None:
    asked = np.concatenate([sound.silence(0.5), sound.spoken("A black dog in the snow."), sound.silence(0.5)])
    assert question_of(blocks(asked), recogniser).lower() == "a black dog in the snow"
    assert question_of(blocks(sound.silence(3.0)), recogniser) == ""


def test_queries_import_no_engine(tmp_path: Path) -> None:
    folder = tmp_path / "talks"
    sound.save_video(folder.parent / "film.mp4", ["red", "blue"])
    (tmp_path / "film.srt").write_text(sound.srt([(1.0, 2.0, "A violet boat.")]), encoding="utf-8")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "film.mp4")
    code = (
        "import sys; from mmsearch.api import Index\n"
        "with Index.open(sys.argv[1]) as index: assert index.search('said:violet')\n"
        "heavy = ('faster_whisper', 'ctranslate2', 'av', 'pysubs2', 'charset_normalizer')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "index")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert done.stdout.strip() == "[]"


def test_a_model_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    with pytest.raises(ModelMissing, match="mmsearch models pull whisper-base"):
        open_recogniser()
    with pytest.raises(EncoderError, match=r"lacks config\.json and model\.bin"):
        open_recogniser(str(tmp_path))
    with pytest.raises(EncoderError, match="no recogniser of speech"):
        open_recogniser("whispering")
    command = [sys.executable, "-m", "mmsearch", "models", "pull", "whisper-base"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}  # which the hub's library reads when it is imported
    done = subprocess.run(command, env=offline, capture_output=True, text=True)
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE is set" in done.stderr and len(done.stderr.splitlines()) == 1


def test_times_in_a_part_are_times_in_the_recording() -> None:
    part = VoicedPart(np.zeros(48_000, np.float32), ((0.0, 10.0, 1.0), (1.0, 50.0, 2.0)))
    assert part.in_recording(0.5, 0.9) == (10.5, 10.9)
    assert part.in_recording(0.5, 2.5) == (10.5, 11.0), "an end stays in its stretch"
    assert part.in_recording(1.5, 2.5) == (50.5, 51.5)

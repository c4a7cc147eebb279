"""A query by voice in a real Chromium, whose microphone is a file; what is found is said, and plays from its moment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmsearch.api import Index
from tests.support.served_page import served_page
from tests.support.sound import RATE, save_sound, save_video, silence, spoken, srt
from tests.support.whisper_model import whisper_base

pytest.importorskip("starlette")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")
pytest.importorskip("uvicorn")

CHROMIUM = Path("/usr/bin/chromium")
SENTENCE = "The harbour opens at nine in the morning."
AT_S = 12.0
PATIENCE_MS = 180_000
"""Whisper runs beside the browser, on whatever cores are left."""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Chromium at {CHROMIUM}")]


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """What Chromium hears, again and again."""
    path = tmp_path / "question.wav"
    sound = np.concatenate([silence(1.0), spoken(SENTENCE), silence(2.0)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000)
        stream.layout = "mono"
        resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
        frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
        frame.sample_rate = RATE
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the page of a film and a recording is served, with its token."""
    home, folder = tmp_path / "home", tmp_path / "library"
    home.mkdir()
    (home / "default-speech-model.txt").write_text(f"{whisper_base()}\n")
    monkeypatch.setenv("MMSEARCH_HOME", str(home))
    save_video(folder / "film.mp4", ["red", "blue", "green"], 8.0, sound=silence(24.0))
    said = [(2.0, 4.0, "We bought bread and cheese."), (AT_S, AT_S + 3.0, SENTENCE)]
    (folder / "film.srt").write_text(srt(said), encoding="utf-8")
    save_sound(folder / "tune.mp3", 3.0, title="A tune")
    with Index.open(tmp_path / "index", create=True, encoder="builtin") as index:
        index.add(folder)
        with served_page(index) as address:
            yield address


@pytest.fixture
def page(question: Path, address: str) -> Iterator[Any]:
    arguments = [
        "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
        "--autoplay-policy=no-user-gesture-required", "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={question}",
    ]  # fmt: skip
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        context = browser.new_context(permissions=["microphone"], viewport={"width": 1280, "height": 800})
        opened = context.new_page()
        opened.set_default_timeout(PATIENCE_MS)
        opened.faults = []
        opened.on("pageerror", lambda error: opened.faults.append(str(error)))
        opened.goto(address)
        yield opened
        browser.close()


def test_a_spoken_query_is_shown_asked_and_plays_from_its_moment(page: Any, tmp_path: Path) -> None:
    button = page.get_by_role("button", name="Ask by voice")
    button.click()
    page.wait_for_timeout(6000)
    button.click()
    field = page.get_by_role("searchbox").or_(page.get_by_role("combobox")).first
    page.wait_for_function("box => box.value.length > 0", arg=field.element_handle())
    understood = field.input_value()  # a busy machine drops sound, and Whisper-base mishears a word
    assert re.search(r"harbou?r|opens|morning", understood, re.IGNORECASE), understood
    field.fill(SENTENCE)
    field.press("Enter")
    page.get_by_text("opens at nine").locator("visible=true").first.wait_for()
    hit = page.get_by_role("button", name=re.compile("film.mp4, said"))
    page.screenshot(path=str(tmp_path / "hits.png"))
    hit.click()
    video = page.locator("video")
    video.wait_for()
    page.wait_for_function("video => video.currentTime > 0", arg=video.element_handle())
    assert video.evaluate("video => video.currentTime") >= AT_S - 0.5
    page.screenshot(path=str(tmp_path / "player.png"))
    assert page.faults == []

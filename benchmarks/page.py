"""How quick the page is in a browser, over a large library: first results after typing, scrolling, and what it weighs.

``python benchmarks/page.py [DOCUMENTS]`` (100,000 by default) makes an index of so many photos: vectors around those of
real ones, dates over twenty years, and files that are links to a few hundred real ones, so that all thumbnails can be
shown. ``mmsearch serve`` answers a headless Chromium (``/usr/bin/chromium``), which draws in software, on the same
machine. Writes ``benchmarks/results/page.json``:

- typing: from the last key to the frame in which the first results, and in which their first pictures, are painted;
  every question is new to the server. The page waits 120 ms after a key for another one; Enter does not wait.
- scrolling: frames that Chromium's own trace says were drawn, a second, while the library is scrolled by a gesture at
  2,000 pixels a second; the longest time between two frames; and how many elements the page had at most.
- weight: bytes of all files of the page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from common.photos import pictures
from playwright.sync_api import Page, sync_playwright

import mmsearch.server
from mmsearch.api import Index

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WINDOWS = {"phone": (390, 844), "desk": (1280, 800)}
PHOTOS = 200
_WORDS = "dog cat lake mountain car street child flower boat bridge horse beach snow guitar kitchen train"
_SUBJECTS = _WORDS.split()
_SCENES = ("at night", "in the rain", "on a table", "by the sea", "in winter")

WATCH = """
() => {
  const note = (name) => { window.times[name] ??= performance.now(); };
  const painted = (name) => requestAnimationFrame(() => setTimeout(() => note(name)));
  window.times = {};
  const field = document.querySelector("#question");
  for (const kind of ["input", "keydown"]) field.addEventListener(kind, (event) => {
    if (kind === "keydown" && event.key !== "Enter") return;
    window.times = { from: performance.now() };
  }, true);
  new MutationObserver(() => {
    const first = document.querySelector(".hits .open img[src]");
    if (!first || !window.times.from || window.times.seen === first) return;
    window.times.seen = first;
    painted("results");
    if (first.complete && first.naturalWidth) painted("picture");
    else first.addEventListener("load", () => painted("picture"));
  }).observe(document.querySelector("#view"), { childList: true, subtree: true });
}
"""


def fill(folder: Path, count: int) -> Path:
    """An index of ``count`` photos, each a file; returns where it lies."""
    random = np.random.default_rng(0)
    (folder / "real").mkdir(parents=True)
    real = []
    for number, picture in enumerate(pictures(PHOTOS, (1024, 768))):
        real.append(folder / "real" / f"{number}.jpg")
        picture.save(real[-1], quality=85)
    with Index.open(folder / "index", create=True, encoder="builtin") as index:
        from PIL import Image

        centres = index.encoder().encode_images([Image.open(file) for file in real])
        of = random.integers(len(real), size=count)
        vectors = centres[of] + 0.3 * random.standard_normal((count, centres.shape[1])) / centres.shape[1] ** 0.5
        rows = []
        for number in range(count):
            year, month = 2005 + number * 20 // count, 1 + number * 240 // count % 12
            place = folder / "photos" / f"{year}" / f"{month:02d}" / f"IMG_{number:06d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(real[of[number]], place)
            date = f"{year}-{month:02d}-{1 + number % 28:02d}T12:{number % 60:02d}:00"
            rows.append(
                {
                    "path": str(place),
                    "modality": "image",
                    "width": 1024,
                    "height": 768,
                    "taken_at": date,
                    "camera": "Canon R6",
                }
            )
        index.add_embeddings(vectors.astype(np.float32), rows, normalize=True)
        index.search("a photo")
    return folder / "index"


def typing(page: Page, questions: list[str], enter: bool) -> dict[str, Any]:
    """Milliseconds from the last key to results on the screen, and to the first picture."""
    page.evaluate(WATCH)
    results, first = [], []
    for question in questions:
        page.fill("#question", "")
        page.keyboard.press("Enter")
        page.wait_for_selector(".library .cell img")
        page.wait_for_timeout(400)
        page.focus("#question")
        if enter:
            page.evaluate("value => { document.querySelector('#question').value = value; }", question)
            page.keyboard.press("Enter")
        else:
            page.keyboard.type(question, delay=30)
        ends = time.monotonic() + 30
        while not page.evaluate("window.times.picture") and time.monotonic() < ends:
            page.wait_for_timeout(30)
        page.wait_for_timeout(200)
        times = page.evaluate("window.times")
        results.append(times["results"] - times["from"])
        first.append(times["picture"] - times["from"])
    return {
        "questions": len(questions),
        "results_median_ms": round(float(np.median(results))),
        "results_p95_ms": round(float(np.quantile(results, 0.95))),
        "picture_median_ms": round(float(np.median(first))),
        "picture_p95_ms": round(float(np.quantile(first, 0.95))),
    }


def scrolling(page: Page, folder: Path, pixels: int = 12_000, speed: int = 2_000) -> dict[str, Any]:
    """Frames a second by the browser's trace, while a gesture scrolls the library."""
    page.context.browser.start_tracing(  # type: ignore[union-attr]
        page=page, path=str(folder / "trace.json"),
        categories=["devtools.timeline", "disabled-by-default-devtools.timeline.frame", "benchmark"],
    )  # fmt: skip
    session = page.context.new_cdp_session(page)
    session.send(
        "Input.synthesizeScrollGesture",
        {"x": 200, "y": 500, "yDistance": -pixels, "speed": speed, "gestureSourceType": "mouse", "preventFling": True},
    )
    nodes = page.evaluate("document.querySelectorAll('*').length")
    page.context.browser.stop_tracing()  # type: ignore[union-attr]
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    drawn = np.sort([event["ts"] for event in events if event["name"] == "DrawFrame"]) / 1e6
    gestures = [
        event["ts"] / 1e6 for event in events if event["name"] in ("ScrollLayer", "UpdateLayer", "GestureScrollUpdate")
    ]
    if gestures:
        drawn = drawn[(drawn >= min(gestures)) & (drawn <= max(gestures))]
    seconds = float(drawn[-1] - drawn[0])
    return {
        "frames_per_s": round((len(drawn) - 1) / seconds, 1),
        "seconds": round(seconds, 1),
        "longest_gap_ms": round(1000 * float(np.diff(drawn).max())),
        "elements": nodes,
    }


def weight() -> dict[str, int]:
    """Bytes of the files of the page."""
    place = Path(mmsearch.server.__file__).parent
    files = [*place.glob("page.*"), *place.glob("page/*.js"), place / "icon.svg", place / "manifest.webmanifest"]
    return {"files": len(files), "bytes": sum(file.stat().st_size for file in files)}


def main() -> None:
    """Builds, measures, prints, writes."""
    parser = command_line(__doc__)
    parser.add_argument("documents", type=int, nargs="?", default=100_000)
    parser.add_argument("--keep", type=Path, help="a folder for the index, made there once and used again")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp())
    place = folder / "index" if (folder / "index").exists() else fill(folder, options.documents)
    words = [f"a {subject} {scene}" for subject in _SUBJECTS for scene in _SCENES]
    np.random.default_rng(1).shuffle(words)
    command = [sys.executable, "-m", "mmsearch", "serve", "--index", str(place), "--port", "0"]
    figures: dict[str, Any] = {"documents": options.documents, "load": [round(one, 1) for one in os.getloadavg()]}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stdout is not None
        while not (address := re.search(r"http://\S+token=\S+", server.stdout.readline())):
            pass
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            for number, (name, (width, height)) in enumerate(WINDOWS.items()):
                page = browser.new_page(viewport={"width": width, "height": height})
                page.goto(address[0])
                page.wait_for_selector(".library .cell img")
                page.wait_for_timeout(3000)
                rounds = [scrolling(page, folder) for _ in range(3)]
                figures[name] = {
                    "scrolling": sorted(rounds, key=lambda one: one["frames_per_s"])[1],
                    "typing": typing(page, words[number * 40 : number * 40 + 20], enter=False),
                    "enter": typing(page, words[number * 40 + 20 : number * 40 + 40], enter=True),
                }
                page.close()
            figures["browser"] = f"Chromium {browser.version}, headless, drawn in software"
        finally:
            browser.close()
            server.terminate()
    figures["weight"] = weight()
    if not options.keep:
        shutil.rmtree(folder)
    publish("page", figures, options)


if __name__ == "__main__":
    main()

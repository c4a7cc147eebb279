"""Makes docs/images/page.jpg: the page in headless Chromium, over photographs that scikit-image and scikit-learn carry.

``python scripts/page_screenshot.py`` needs the extras ``demo`` and ``serve``, playwright, and ``/usr/bin/chromium``.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from skimage import data
from sklearn.datasets import load_sample_image

from mmsearch.api import Index

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "page.jpg"
PHOTOS = {
    "chelsea": "2024/Home 2024:05:04", "coffee": "2024/Home 2024:05:06", "astronaut": "2023/Space 2023:07:20",
    "rocket": "2023/Space 2023:07:20", "hubble_deep_field": "2023/Space 2023:07:21", "moon": "2023/Space 2023:08:02",
    "coins": "2021/Coins 2021:03:10", "grass": "2022/Ground 2022:04:11", "gravel": "2022/Ground 2022:04:12",
    "china": "2024/Garden 2024:06:11", "flower": "2024/Garden 2024:06:12",
}  # fmt: skip
QUERY = "an astronaut and a rocket after:2023"


def save_photos(folder: Path) -> None:
    """All of `PHOTOS`, with a date."""
    for name, about in PHOTOS.items():
        place, date = about.split()
        pixels = load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(data, name)()
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f"{date} 12:00:00"
        (folder / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert("RGB").save(folder / place / f"{name}.jpg", exif=exif, quality=92)


def main() -> None:
    """Indexes, serves, searches, takes the picture."""
    with tempfile.TemporaryDirectory() as folder:
        save_photos(Path(folder) / "Pictures")
        with Index.open(Path(folder) / "index", create=True, encoder="builtin") as index:
            index.add(Path(folder) / "Pictures")
        command = [sys.executable, "-m", "mmsearch", "serve", "--index", f"{folder}/index", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
            assert server.stdout is not None
            while not (address := re.search(r"http://\S+token=\S+", server.stdout.readline())):
                pass
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 720}, color_scheme="light")
            page.goto(address[0])
            for query in ("a first one, which opens the encoder", QUERY):
                page.fill("#question", query)
                page.keyboard.press("Enter")
                page.wait_for_selector("#about:has-text(' s'), #about:has-text('nearest')", timeout=120_000)
                page.wait_for_timeout(3000)
            page.wait_for_load_state("networkidle")
            page.locator("#question").blur()
            page.wait_for_timeout(500)
            taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            browser.close()
            server.terminate()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    taken.save(PICTURE, quality=82, optimize=True)


if __name__ == "__main__":
    main()

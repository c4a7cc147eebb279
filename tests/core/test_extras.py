"""The command that installs an extra works from where mmsearch was installed."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from mmsearch.core import extras
from mmsearch.core.extras import install_hint

ROOT = Path(__file__).parents[2]


def test_in_a_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert install_hint("serve") == 'pip install -e ".[serve]"'
    monkeypatch.chdir(tmp_path)
    assert install_hint("mcp") == f'pip install -e "{ROOT}[mcp]"'


@pytest.mark.parametrize(
    "written, hint",
    [
        ('{{"url": "file://{place}", "dir_info": {{}}}}', 'pip install "{folder}[ocr]"'),
        ('{{"url": "file://{place}/gone", "dir_info": {{}}}}', 'pip install "mmsearch[ocr]"'),
        ('{{"url": "https://example.org/mmsearch.whl"}}', 'pip install "mmsearch[ocr]"'),
        ("not json", 'pip install "mmsearch[ocr]"'),
        ("[]", 'pip install "mmsearch[ocr]"'),
        (None, 'pip install "mmsearch[ocr]"'),
    ],
)
def test_installed_elsewhere(written: str | None, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my clone"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(extras, "_HERE", tmp_path / "site-packages")
    place = folder.as_uri().removeprefix("file://")

    class Installed:
        def read_text(self, name: str) -> Any:
            assert name == "direct_url.json"
            return None if written is None else written.format(place=place)

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    if written and written.startswith("{{"):
        json.loads(written.format(place=place))
    assert install_hint("ocr") == hint.format(folder=folder)


def test_not_installed_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_HERE", tmp_path)

    def none(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none)
    assert install_hint("ocr") == 'pip install "mmsearch[ocr]"'

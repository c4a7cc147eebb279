"""How to install what only some need, spelled so that it works from where mmsearch was installed."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

_HERE = Path(__file__).resolve().parents[2]


def install_hint(extra: str) -> str:
    """The command that installs an extra: ``pip install -e ".[serve]"`` in a clone, with its path from elsewhere."""
    if (_HERE / "pyproject.toml").is_file():
        return f'pip install -e "{_place(_HERE)}[{extra}]"'
    source = _source()
    return f'pip install "{"mmsearch" if source is None else _place(source)}[{extra}]"'


def _place(folder: Path) -> str:
    try:
        return "." if folder.samefile(Path.cwd()) else str(folder)
    except OSError:
        return str(folder)


def _source() -> Path | None:
    """The folder that pip installed mmsearch from, if it was one and is still there."""
    try:
        written = metadata.distribution("mmsearch").read_text("direct_url.json")
        address = urlsplit(json.loads(written or "{}").get("url", ""))
    except (metadata.PackageNotFoundError, OSError, ValueError, AttributeError):
        return None
    folder = Path(unquote(address.path))
    return folder if address.scheme == "file" and (folder / "pyproject.toml").is_file() else None

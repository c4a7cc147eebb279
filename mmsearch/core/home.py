"""Where indexes live, and which encoder a new one gets, when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from mmsearch.core.errors import UsageError
from mmsearch.core.regular import read_regular

DEFAULT_INDEX = "default"
_MODEL_FILE = "default-model.txt"


def home() -> Path:
    """``$MMSEARCH_HOME``, else the platform's directory for user data."""
    chosen = os.environ.get("MMSEARCH_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("mmsearch", appauthor=False))


NAME_BYTES = 255
"""Of one name in a path, at most."""


def locate_index(name_or_path: str | os.PathLike[str]) -> Path:
    """The directory of an index: a bare name means one below `home`, anything with a separator is a path.

    Raises:
        UsageError: an empty name, or what can be none.
    """
    if not isinstance(name_or_path, (str, os.PathLike)) or "\0" in str(name_or_path):
        raise UsageError(f"{name_or_path!r} is no name and no path of an index")
    text = os.fspath(name_or_path)
    if not text.strip():
        raise UsageError("the name of the index is empty: give a name or a path")
    is_path = isinstance(name_or_path, Path) or any(mark in text for mark in ("/", os.sep)) or text[0] in ".~"
    place = Path(os.path.realpath(expanded(text))) if is_path else home() / text
    if max(len(os.fsencode(part)) for part in place.parts) > NAME_BYTES:
        raise UsageError(f"the name of the index is too long for this system: {text[:60]}…")
    return place


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with the home folder in place of ``~``.

    Raises:
        UsageError: there is no user of that name.
    """
    try:
        return (path if isinstance(path, Path) else Path(path)).expanduser()
    except RuntimeError as error:
        raise UsageError(f"there is no home folder for {path}") from error


def default_model() -> str:
    """The encoder of a new index: the model pulled last, the built-in one until then."""
    try:
        return (read_regular(home() / _MODEL_FILE, 4096) or b"").decode().strip() or "builtin"
    except (OSError, UnicodeDecodeError):
        return "builtin"


def set_default_model(name: str) -> None:
    """Lets new indexes use this model."""
    home().mkdir(parents=True, exist_ok=True)
    (home() / _MODEL_FILE).write_text(name + "\n", encoding="utf-8")

"""Where weights lie on this machine, and what their digest is; the cache of what can be made again.

Nothing here imports torch, open_clip or huggingface_hub, and nothing touches the network: a query must be
able to name the exact weights of its index in milliseconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import platformdirs

from mmsearch.core.errors import ModelMissing

# The order in which open_clip itself prefers the checkpoints of a directory: the digest must be that of the
# file that is going to be loaded.
_PREFERRED_CHECKPOINTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)


def cache_dir() -> Path:
    """Where mmsearch keeps what it can make again: ``$MMSEARCH_CACHE``, else where the platform keeps such."""
    place = os.environ.get("MMSEARCH_CACHE")
    return Path(place).expanduser() if place else Path(platformdirs.user_cache_dir("mmsearch", appauthor=False))


def hub_cache_dir() -> Path:
    """The Hugging Face cache, found by the same variables as huggingface_hub finds it."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if place := os.environ.get(variable):
            return Path(os.path.expandvars(place)).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def hub_snapshot(repo: str) -> Path | None:
    """The directory of the revision of ``repo`` that was downloaded last, or ``None``."""
    folder = hub_cache_dir() / ("models--" + repo.replace("/", "--"))
    with contextlib.suppress(OSError):
        snapshot = folder / "snapshots" / (folder / "refs" / "main").read_text().strip()
        return snapshot if snapshot.is_dir() else None
    return None


def hub_file(repo: str, filename: str) -> Path | None:
    """A file of a hub repository if it is in the local cache, complete; ``None`` otherwise."""
    snapshot = hub_snapshot(repo)
    path = snapshot / filename if snapshot else None
    return path if path is not None and path.is_file() else None


def missing(name: str) -> ModelMissing:
    """The error for a model that must be fetched first."""
    return ModelMissing(f"the weights of {name} are not on this machine; fetch them with: mmsearch models pull {name}")


def find_checkpoint(directory: Path) -> Path | None:
    """The weights in a directory of open_clip's local format, chosen as open_clip chooses them."""
    found = sorted(path for suffix in ("safetensors", "bin", "pth") for path in directory.glob(f"*.{suffix}"))
    by_name = {path.name: path for path in found}
    for name in _PREFERRED_CHECKPOINTS:
        if name in by_name:
            return by_name[name]
    return next(iter(sorted(found, key=lambda path: path.suffix != ".safetensors")), None)


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file. Hashing gigabytes takes seconds, so the answer is kept by path, size, mtime."""
    path = path.resolve()
    stat = path.stat()
    known = cache_dir() / "weights.json"
    entry = read_json(known).get(str(path))
    if isinstance(entry, list) and entry[:2] == [stat.st_size, stat.st_mtime_ns]:
        return str(entry[2])
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    add_to_json(known, str(path), [stat.st_size, stat.st_mtime_ns, digest.hexdigest()])
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the cache; empty if it is missing or damaged, since the cache can be made again."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def add_to_json(path: Path, key: str, value: object) -> None:
    """Adds one entry and swaps the file in whole. A cache that cannot be written is not an error."""
    with contextlib.suppress(OSError):
        write_json(path, {**read_json(path), key: value})


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file so that a reader sees the old or the new one, never a half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(content, file, indent=1)
    Path(file.name).replace(path)

"""What every result carries: the code, the machine and the versions it was measured with. No paths, no names."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

LIBRARIES = (
    "numpy", "pillow", "onnxruntime", "faiss-cpu", "faiss-gpu-cu12", "sqlite-utils", "tokenizers", "av", "torch",
    "open_clip_torch",
)  # fmt: skip


class Memory(NamedTuple):
    """Resident megabytes of this process: all of it, what it allocated, and mapped pages of files."""

    resident: float
    allocated: float
    of_files: float

    @classmethod
    def now(cls) -> Memory:
        """From the kernel's own account; Linux only."""
        return cls(*map(_megabytes, ("VmRSS", "RssAnon", "RssFile")))

    @staticmethod
    def peak() -> float:
        """The most that was ever resident."""
        return _megabytes("VmHWM")


def _megabytes(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return round(int(status.split(f"{field}:")[1].split()[0]) / 1024, 1)


def describe() -> dict[str, Any]:
    """Commit, date, processor, cores, Python and library versions."""
    return {
        "commit": _commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := version_of(name))},
    }


def data_folder(*parts: str, optional: bool = False) -> Path:
    """A place below ``$MMSEARCH_TEST_DATA``, which has ``photos/`` and ``flickr8k/``.

    Where that is not set, it ends the program, or gives a path that does not exist if it is ``optional``.
    """
    folder = os.environ.get("MMSEARCH_TEST_DATA")
    if not folder and not optional:
        sys.exit("MMSEARCH_TEST_DATA must name the folder with photos/ and flickr8k/")
    return Path(folder or "/nowhere", *parts)


def _commit() -> str | None:
    """The short commit, with ``+changes`` when the tracked files differ from it; ``None`` outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.check_output(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, text=True, stderr=subprocess.DEVNULL
        ).strip()
        dirty = subprocess.check_output(["git", "status", "--porcelain", "--untracked-files=no"], cwd=here, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if dirty.strip() else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def version_of(name: str) -> str | None:
    """Of an installed package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

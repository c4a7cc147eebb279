"""What every result carries: the code, the machine and the versions it was measured with. No paths, no names."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("numpy", "pillow", "onnxruntime", "faiss-cpu", "sqlite-utils", "tokenizers", "av", "torch")


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
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def write_result(name: str, figures: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Writes ``results/NAME.json`` with the figures and the facts of `describe`; returns its path."""
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, **figures, "environment": describe()}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


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


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

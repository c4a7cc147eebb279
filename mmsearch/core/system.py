"""What several rooms ask the operating system."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def session_settings(threads: int | None = None, *, spins: bool = False) -> Any:
    """Those of an ONNX Runtime session with ``threads`` of its own (``None``: all cores that this process may use).

    Threads that spin while they wait start sooner, and take the cores from whatever else works meanwhile.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads or usable_cores()
    settings.log_severity_level = 3
    if not spins:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return settings


def sync_directory(directory: Path) -> None:
    """Makes a file's creation or renaming in ``directory`` survive a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The program in this process: as a process of its own would run it, without what starting one costs."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from mmsearch.cli import main


@dataclass(frozen=True)
class Ended:
    """What a run printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def run_program(
    *arguments: str | Path, home: Path | None = None, code: int | None = 0, given: str = "", **environment: str
) -> Ended:
    """Runs ``mmsearch ARGUMENTS`` with ``given`` on its standard input. ``home``: its data directory. ``code``: the
    exit code that it must have, if that is known.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", newline="", write_through=True) for _ in range(2)]
    given_stream = io.TextIOWrapper(io.BytesIO(given.encode()), "utf-8")
    settings = {"HF_HUB_OFFLINE": "1", **({} if home is None else {"MMSEARCH_HOME": str(home)}), **environment}
    kept = {name: value for name, value in os.environ.items() if name not in ("MMSEARCH_INDEX", "MMSEARCH_STORE")}
    exit_code = 0
    with (
        mock.patch.dict(os.environ, {**kept, **settings}, clear=True),
        mock.patch.object(sys, "argv", ["mmsearch", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", given_stream),
        mock.patch("gc.freeze"),  # a process that ends leaves its garbage; this one goes on
        redirect_stdout(streams[0]),
        redirect_stderr(streams[1]),
    ):
        try:
            main()
        except SystemExit as ended:
            exit_code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    stdout, stderr = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    assert code is None or exit_code == code, stdout + stderr
    return Ended(exit_code, stdout, stderr)

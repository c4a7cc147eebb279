"""The command line of a benchmark, and ``results/NAME.json``: the one way to write a result."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.environment import describe

RESULTS = Path(__file__).resolve().parents[1] / "results"


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the module's docstring, with ``--no-write`` and ``--results``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-write", action="store_true", help="only print the figures")
    parser.add_argument("--results", type=Path, default=RESULTS, help=argparse.SUPPRESS)
    return parser


def publish(name: str, figures: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Prints the figures and, without ``--no-write``, writes them to ``results/NAME.json``."""
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    if not options.no_write:
        write_result(name, figures, options.results)


def write_result(name: str, figures: Mapping[str, Any], folder: Path = RESULTS, **facts: Any) -> Path:
    """Writes ``NAME.json`` with the figures, the facts of `describe` and further ``facts``; returns its path."""
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, **figures, "environment": {**describe(), **facts}}
    draft = path.with_suffix(".json.new")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
    return path

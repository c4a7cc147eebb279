"""The dry run of benchmarks/gpu.py: every line of it but those that need a device."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(folder: Path, *options: str) -> dict:
    command = [sys.executable, str(SCRIPT), "--tiny", "--results", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict = json.loads((folder / "gpu.json").read_text())
    return result


@pytest.mark.slow
def test_vectors(tmp_path: Path) -> None:
    """All recipes for a GPU are built, saved, opened, tuned and searched, in main memory where FAISS sees none."""
    result = run(tmp_path, "--only", "vectors", "--commit", "c0ffee")
    assert result["done"] == ["vectors"] and result["environment"]["commit"] == "c0ffee"
    figures = result["vectors"]
    for recipe in ("gpu_exact", "gpu_ivf", "gpu_cagra", "ivf_pq", "pq_scan"):
        assert figures[recipe]["recall@10"] >= 0.9, figures[recipe]
        assert set(figures[recipe]["queries_per_s"]) == {"1", "16", "256"}
        assert {"build_s", "open_s", "bytes_on_disk", "parameters"} <= figures[recipe].keys()
    assert set(figures["exact"]["queries_per_s"]) == {"1", "16", "256"}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_encoders(tmp_path: Path) -> None:
    result = run(tmp_path, "--only", "encoders")
    assert result["done"] == ["encoders"]
    encoder = result["encoders"]["small"]
    assert encoder["smallest_cosine_to_float32"] > 0.99
    for way in ("eager", "compiled"):
        assert min(encoder[way][f"{what}_per_s"] for what in ("encoder_only", "with_copies", "from_files")) > 0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_commands(tmp_path: Path) -> None:
    result = run(tmp_path, "--only", "commands")
    assert result["done"] == ["commands"]
    for model in ("builtin", "small"):
        assert result["commands"][model]["index"]["images"] == 16
        assert result["commands"][model]["query_s"] > 0 and result["commands"][model]["256_queries_s"] > 0


def test_a_run_that_is_cut_off_keeps_its_figures(tmp_path: Path) -> None:
    """Parts are ended when their time is spent; here after some milliseconds, in which no process ends by itself."""
    started = time.monotonic()
    result = run(tmp_path, "--only", "vectors", "--budget", "0.0001")
    assert result["cut_off"] == ["vectors"] and result["done"] == result["failed"] == []
    assert result["vectors"]["part_s"] < 10 and time.monotonic() - started < 30

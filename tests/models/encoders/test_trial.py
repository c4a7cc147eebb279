"""Trying a model, and how fast models are said to be here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmsearch.cli.commands import app
from mmsearch.core.home import home
from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.builtin import BuiltinEncoder
from mmsearch.models.encoders.catalogue import SUGGESTED, SUGGESTED_ENGLISH, list_models
from mmsearch.models.encoders.rates import Rate, keep_rate, rate_of
from mmsearch.models.encoders.trial import try_encoder
from tests.support.dual_encoders import save_dual_encoder


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache and a home of this test alone."""
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))


def test_a_trained_model_passes_and_the_same_with_colours_swapped_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_encoder("builtin")
    trial = try_encoder(encoder)
    assert trial.passed and trial.colours >= 12 and trial.rate > 0
    prepare = BuiltinEncoder.prepare_image
    monkeypatch.setattr(
        BuiltinEncoder, "prepare_image", lambda self, image: np.ascontiguousarray(prepare(self, image)[..., ::-1])
    )
    assert not try_encoder(encoder).passed


@pytest.mark.parametrize("family", ["clip", "siglip", "chinese_clip"])
def test_random_weights_fail(family: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = save_dual_encoder(tmp_path / family, family)
    assert not try_encoder(open_encoder(str(folder))).passed
    done = CliRunner().invoke(app, ["models", "test", str(folder), "--json"])
    assert done.exit_code == 1 and json.loads(done.stdout.splitlines()[-1])["passed"] is False


def test_the_commands() -> None:
    done = CliRunner().invoke(app, ["models", "test"])
    assert done.exit_code == 0 and "it answers sensibly" in done.stdout
    listed = CliRunner().invoke(app, ["models"])
    assert listed.exit_code == 0
    builtin = next(line for line in listed.stdout.splitlines() if line.startswith("* builtin"))
    assert "~" not in builtin and "Flickr8k dev" in builtin, "it was measured a moment ago"
    assert "English, some" in builtin and "ships" in builtin and "Apache-2.0" in builtin
    assert SUGGESTED in listed.stdout and "5,000 photos" in listed.stdout and "100+ languages" in listed.stdout
    rows = [json.loads(line) for line in CliRunner().invoke(app, ["models", "--json"]).stdout.splitlines()]
    assert [row["measured"] for row in rows] == [row["name"] == "builtin" for row in rows]
    assert all(row["images_per_s"] > 0 and row["languages"] for row in rows)
    assert not (home() / "default-model.txt").exists()


def test_listing_models_imports_no_torch() -> None:
    """Neither where torch is installed, nor with the endings of names."""
    code = (
        "import sys; from mmsearch.models.encoders.catalogue import list_models; "
        "from mmsearch.models.encoders.rates import rate_of; "
        "assert all(rate_of(row).images_per_s > 0 for row in list_models()); "
        "print([name for name in ('torch', 'open_clip', 'onnxruntime') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_busy_moment_is_not_remembered() -> None:
    for rate in (3.6, 77.0, 20.0):
        keep_rate("builtin", rate)
    assert rate_of(list_models()[0]) == Rate(77.0, True)


def test_a_time_is_said_in_words() -> None:
    assert Rate(20, True).time_for(5000) == "5,000 photos: about 4 minutes"
    assert Rate(100, True).time_for(50) == "50 photos: about 1 second"
    assert Rate(1, True).time_for(100_000) == "100,000 photos: about 28 hours"


def test_a_slower_model_is_estimated_slower() -> None:
    rows = [row for row in list_models() if row.name in (SUGGESTED, SUGGESTED_ENGLISH)]
    fast, slow = (rate_of(row) for row in sorted(rows, key=lambda row: row.image_gflops))
    assert fast.images_per_s > slow.images_per_s and not fast.measured
    keep_rate("builtin", 12.5)
    assert rate_of(list_models()[0]) == Rate(12.5, True)

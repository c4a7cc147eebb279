"""CLAP of transformers: the vectors are those of transformers itself. The weights are random: quality is not tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.media.sound.containers import sound_of, windows_of
from mmsearch.models.sounds import SUGGESTED_SOUNDS, is_sound_encoder, open_sound_encoder
from tests.support.clap_model import save_clap
from tests.support.dual_encoders import save_dual_encoder
from tests.support.sound import noise, save_sound, tune

pytest.importorskip("transformers", reason="needs the extra mmsearch[hf]")
LIKE = 0.9999


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clap(tmp_path_factory.mktemp("clap") / "model", fused=request.param)


def test_sounds_have_the_vectors_that_transformers_gives(folder: Path, tmp_path: Path) -> None:
    import torch
    import transformers

    save_sound(tmp_path / "a.flac", np.concatenate([tune(10.0), noise(10.0), tune(3.0, 880.0)]))
    encoder = open_sound_encoder(str(folder))
    windows = [window for _, window in windows_of(sound_of(tmp_path / "a.flac", rate=48_000), 48_000, 10.0)]
    assert [len(window) for window in windows[:2]] == [480_000] * 2 and 130_000 < len(windows[2]) < 150_000
    found = encoder.encode_sounds(windows)
    model = transformers.ClapModel.from_pretrained(folder).eval()
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    with torch.inference_mode():
        for row, window in zip(found, windows, strict=True):
            given = extractor(window, sampling_rate=48_000, return_tensors="pt")
            given["is_longer"] = torch.zeros_like(torch.as_tensor(given["is_longer"]))  # else one is drawn by lot
            wanted = model.get_audio_features(**given)
            wanted = wanted if torch.is_tensor(wanted) else wanted.pooler_output
            assert float(row @ torch.nn.functional.normalize(wanted[0], dim=-1).numpy()) >= LIKE
    assert found.shape == (3, encoder.spec.dim) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[1] < LIKE, "a tune and noise are not the same"


def test_texts_have_the_vectors_that_transformers_gives(folder: Path) -> None:
    import torch
    import transformers

    texts = ["a dog barking", "the sound of rain", "music " * 200]
    encoder = open_sound_encoder(str(folder))
    found = encoder.encode_texts(texts)
    model = transformers.ClapModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        for row, text in zip(found, texts, strict=True):
            wanted = model.get_text_features(**tokenizer(text, truncation=True, max_length=38, return_tensors="pt"))
            wanted = wanted if torch.is_tensor(wanted) else wanted.pooler_output
            assert float(row @ torch.nn.functional.normalize(wanted[0], dim=-1).numpy()) >= LIKE
    assert found[0] @ found[1] < LIKE
    assert encoder.encode_texts([]).shape == encoder.encode_sounds([]).shape == (0, encoder.spec.dim)


def test_what_it_is(folder: Path) -> None:
    encoder = open_sound_encoder(str(folder))
    assert (encoder.rate, encoder.window_s, encoder.spec.dim) == (48_000, 10.0, 16)
    assert encoder.spec.logit_scale == pytest.approx(1 / 0.07, rel=0.01) and len(encoder.spec.digest) == 64
    assert encoder.spec.name == str(folder) and not is_sound_encoder("builtin")


def test_one_that_is_not_here_is_one_sentence() -> None:
    with pytest.raises(ModelMissing, match=f"mmsearch models pull {SUGGESTED_SOUNDS}"):
        open_sound_encoder(SUGGESTED_SOUNDS)
    with pytest.raises(EncoderError, match="there is no encoder of sounds nonsense: expected hf:ORG/NAME"):
        open_sound_encoder("nonsense")


def test_a_model_that_sees_hears_nothing(tmp_path: Path) -> None:
    save_dual_encoder(tmp_path / "clip", "clip")
    with pytest.raises(EncoderError, match="of the type clip; an encoder of sounds is of the type clap"):
        open_sound_encoder(str(tmp_path / "clip"))


def test_a_broken_one_is_one_sentence(tmp_path: Path) -> None:
    save_clap(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(EncoderError, match="cannot be loaded from"):
        open_sound_encoder(str(tmp_path / "model"))

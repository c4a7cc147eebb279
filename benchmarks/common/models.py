"""open_clip models with random weights, as a folder that mmsearch opens: nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
"""A model that costs next to nothing."""


def random_model(architecture: str = "small", seed: int = 0) -> Any:
    """A model of open_clip, in main memory; ``architecture``: one of open_clip's names, or ``small``."""
    import open_clip
    import torch

    torch.manual_seed(seed)
    return open_clip.CLIP(**SMALL) if architecture == "small" else open_clip.create_model(architecture)


def save_model(directory: Path, architecture: str = "small", seed: int = 0) -> str:
    """Writes such a model, unless it is there; returns the name that opens it."""
    import open_clip
    from safetensors.torch import save_file

    if not (directory / "open_clip_config.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        weights = random_model(architecture, seed).state_dict()
        save_file(
            {name: value.contiguous() for name, value in weights.items()}, directory / "open_clip_model.safetensors"
        )
        config = SMALL if architecture == "small" else open_clip.get_model_config(architecture)
        (directory / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return f"local-dir:{directory}"

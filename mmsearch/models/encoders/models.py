"""Which models are recommended, which are on this machine, and how one gets here.

The table is data; reading it imports neither torch nor open_clip. Retrieval figures are recall@1 of text →
image, zero-shot, on the Karpathy test splits of COCO (5,000 images) and Flickr30k (1,000 images).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.models.encoders.weights import (
    CONFIG_FILE,
    DIRECTORY_PREFIX,
    HUB_PREFIX,
    LocalModel,
    checkpoint_candidates,
    find_checkpoint,
    first_hub_file,
    hub_snapshot,
    recall_hub_place,
    remember_hub_place,
)

Speed = Literal["fast", "medium", "slow", "GPU"]

BUILTIN = "builtin"
VIEWS_SUFFIX = "+views"
"""After the name of any model: pictures are looked at several times (`mmsearch.models.encoders.views`)."""
SUGGESTED = "ViT-B-32-SigLIP2-256/webli"
"""What to name to somebody who asks for better answers than the built-in encoder gives: free to use, and
indexing stays possible on a CPU."""

OPEN_CLIP_TABLE = "open_clip docs/openclip_retrieval_results.csv"
MOBILECLIP_TABLE = "apple/ml-mobileclip results"
SIGLIP2_TABLE = "google-research/big_vision README_siglip2.md"
PE_TABLE = "facebookresearch/perception_models README.md"


@dataclass(frozen=True)
class ModelRow:
    """One recommended model.

    ``image_size`` pixels of the square input; ``parameters_m`` millions; ``download_mb`` 10⁶ bytes of float32
    weights; ``image_gflops`` 10⁹ operations an image (two a multiply-add); recalls in percent, ``None`` where
    the source does not publish them.
    """

    name: str
    image_size: int
    dim: int
    parameters_m: float
    download_mb: int
    image_gflops: float
    coco_recall1: float | None
    flickr30k_recall1: float | None
    licence: str
    source: str
    repo: str = ""
    filename: str = ""
    present: bool = False

    @property
    def speed(self) -> Speed:
        """Indexing speed on a CPU: ``fast`` up to 12 GFLOP an image, ``medium`` to 40, ``slow`` to 200."""
        limits: tuple[tuple[float, Speed], ...] = ((12, "fast"), (40, "medium"), (200, "slow"))
        return next((speed for limit, speed in limits if self.image_gflops <= limit), "GPU")


_APPLE = "Apple AMLR (research only)"
_ROWS = (
    ModelRow(BUILTIN, 260, 896, 39.7, 0, 1.7, None, None, "see its model card", "model card", present=True),
    ModelRow(
        "MobileCLIP2-S0/dfndr2b", 256, 512, 74.8, 300, 4.8, 43.7, 69.2, _APPLE,
        MOBILECLIP_TABLE, "timm/MobileCLIP2-S0-OpenCLIP",
    ),
    ModelRow(
        BUILTIN + VIEWS_SUFFIX, 260, 896, 39.7, 0, 5.1, None, None, "see its model card", "model card", present=True,
    ),
    ModelRow(
        "ViT-B-32/laion2b_s34b_b79k", 224, 512, 151.3, 605, 8.8, 39.3, 66.8, "MIT",
        OPEN_CLIP_TABLE, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    ),
    ModelRow(
        "ViT-B-32-256/datacomp_s34b_b86k", 256, 512, 151.3, 605, 11.5, 39.9, 64.9, "MIT",
        OPEN_CLIP_TABLE, "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
    ),
    ModelRow(
        SUGGESTED, 256, 768, 376.9, 1507, 11.9, 47.2, None, "Apache-2.0",
        SIGLIP2_TABLE, "timm/ViT-B-32-SigLIP2-256",
    ),
    ModelRow(
        "MobileCLIP2-S2/dfndr2b", 256, 512, 99.2, 397, 15.8, 48.8, 74.8, _APPLE,
        MOBILECLIP_TABLE, "timm/MobileCLIP2-S2-OpenCLIP",
    ),
    ModelRow(
        "ViT-B-16-SigLIP/webli", 224, 768, 203.2, 813, 35.4, 47.8, 74.7, "Apache-2.0",
        OPEN_CLIP_TABLE, "timm/ViT-B-16-SigLIP",
    ),
    ModelRow(
        "ViT-B-16-SigLIP2/webli", 224, 768, 375.2, 1501, 35.4, 52.1, None, "Apache-2.0",
        SIGLIP2_TABLE, "timm/ViT-B-16-SigLIP2",
    ),
    ModelRow(
        "MobileCLIP2-S4/dfndr2b", 256, 768, 445.4, 1783, 55.6, 51.5, 78.0, _APPLE,
        MOBILECLIP_TABLE, "timm/MobileCLIP2-S4-OpenCLIP",
    ),
    ModelRow(
        "ViT-L-14/laion2b_s32b_b82k", 224, 768, 427.6, 1710, 162.0, 46.5, 75.5, "MIT",
        OPEN_CLIP_TABLE, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    ),
    ModelRow(
        "PE-Core-L-14-336/meta", 336, 1024, 671.1, 2685, 381.9, 57.1, None, "Apache-2.0",
        PE_TABLE, "timm/PE-Core-L-14-336",
    ),
    ModelRow(
        "ViT-SO400M-14-SigLIP-384/webli", 384, 1152, 878.0, 3512, 670.4, 54.2, 83.0, "Apache-2.0",
        OPEN_CLIP_TABLE, "timm/ViT-SO400M-14-SigLIP-384",
    ),
    ModelRow(
        "ViT-SO400M-14-SigLIP2-378/webli", 378, 1152, 1136.0, 4544, 670.4, 55.8, None, "Apache-2.0",
        SIGLIP2_TABLE, "timm/ViT-SO400M-14-SigLIP2-378",
    ),
)  # fmt: skip


def list_models() -> list[ModelRow]:
    """The recommended models, cheapest first, with ``present`` as it is on this machine now."""
    return [row if row.present else _with_presence(row) for row in _ROWS]


def is_present(name: str) -> bool:
    """Whether a model can be opened without a download.

    Raises:
        EncoderError: there is no model of that name.
    """
    name, _ = without_views(name)
    if name == BUILTIN:
        return True
    try:
        locate(name)
    except ModelMissing:
        return False
    return True


def without_views(name: str) -> tuple[str, bool]:
    """A name without ``+views``, and whether it had it; a directory may well be called so."""
    has_views = name.endswith(VIEWS_SUFFIX) and not Path(name.removeprefix(DIRECTORY_PREFIX)).expanduser().is_dir()
    return (name.removesuffix(VIEWS_SUFFIX) if has_views else name), has_views


def canonical_name(name: str) -> str:
    """One spelling for each model: a directory becomes ``local-dir:`` with its absolute path."""
    plain, views = without_views(name)
    if views:
        return canonical_name(plain) + VIEWS_SUFFIX
    if name.startswith(HUB_PREFIX) or name == BUILTIN:
        return name
    if name.startswith(DIRECTORY_PREFIX) or Path(name).expanduser().is_dir():
        directory = Path(name.removeprefix(DIRECTORY_PREFIX)).expanduser()
        return DIRECTORY_PREFIX + str(directory.resolve())
    architecture, slash, tag = name.rpartition("/")
    return architecture + slash + tag.lower().replace("-", "_")


def locate(name: str) -> LocalModel:
    """Finds the files of an open_clip model on this machine, without the network.

    Raises:
        ModelMissing: the name is known, the weights are not here.
        EncoderError: nothing is known by that name.
    """
    name = canonical_name(name)
    if name.startswith(DIRECTORY_PREFIX):
        return _in_directory(name, Path(name.removeprefix(DIRECTORY_PREFIX)))
    if name.startswith(HUB_PREFIX):
        repo = name.removeprefix(HUB_PREFIX)
        snapshot = hub_snapshot(repo)
        checkpoint = find_checkpoint(snapshot) if snapshot else None
        if snapshot is None or checkpoint is None or not (snapshot / CONFIG_FILE).is_file():
            raise missing(name)
        return LocalModel(name, checkpoint, directory=snapshot, repo=repo)
    architecture, _, tag = name.rpartition("/")
    repo, filename = hub_place(name)
    checkpoint = first_hub_file(repo, checkpoint_candidates(filename))
    if checkpoint is None:
        raise missing(name)
    return LocalModel(name, checkpoint, architecture=architecture, tag=tag, repo=repo)


def hub_place(name: str) -> tuple[str, str]:
    """Repository and file name (empty: the usual ones) of ``ARCHITECTURE/TAG`` on the Hugging Face hub.

    Recommended models and those opened before are known at once; for others open_clip is asked.

    Raises:
        EncoderError: open_clip does not know it; the message names similar and recommended ones.
    """
    row = next((row for row in _ROWS if row.name == name and row.repo), None)
    if row is not None:
        return row.repo, row.filename
    place = recall_hub_place(name)
    if place is not None:
        return place
    if name.startswith(("/", ".", "~")):
        raise EncoderError(f"there is no directory {name}; give the path of a directory that holds a model")

    from mmsearch.models.encoders.open_clip_loading import pretrained_places

    places = pretrained_places()
    if name not in places:
        raise EncoderError(_unknown(name, list(places)))
    remember_hub_place(name, *places[name])
    return places[name]


def missing(name: str) -> ModelMissing:
    """The error for a model that must be fetched first."""
    return ModelMissing(f"the weights of {name} are not on this machine; fetch them with: mmsearch models pull {name}")


def _in_directory(name: str, directory: Path) -> LocalModel:
    if not directory.is_dir():
        raise EncoderError(f"there is no directory {directory}; {name} must name one that holds a model")
    if not (directory / CONFIG_FILE).is_file():
        raise EncoderError(f"{directory} holds no {CONFIG_FILE}; expected a model saved in open_clip's format")
    checkpoint = find_checkpoint(directory)
    if checkpoint is None:
        raise ModelMissing(
            f"{directory} holds {CONFIG_FILE} but no weights; put open_clip_model.safetensors (or another"
            " .safetensors, .bin or .pth file) beside it"
        )
    return LocalModel(name, checkpoint, directory=directory)


def _with_presence(row: ModelRow) -> ModelRow:
    return replace(row, present=is_present(row.name))


def _unknown(name: str, known: list[str]) -> str:
    tags = [other for other in known if other.rpartition("/")[0] == name]
    lower = {other.lower(): other for other in known}
    close = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=4, cutoff=0.5)]
    similar = tags[:6] or close
    message = f"there is no model {name!r}"
    if similar:
        message += f"; similar names: {', '.join(similar)}"
    recommended = ", ".join(row.name for row in _ROWS[:5])
    return (
        f"{message}; recommended: {recommended} (all: mmsearch models). Also possible: hf-hub:ORG/NAME and"
        " the path of a directory"
    )

"""The recommended models: how good, how large, how fast, and where they come from.

The table is data; reading it imports neither torch nor open_clip. Retrieval figures are recall@1 of text →
image, zero-shot, on the Karpathy test splits of COCO (5,000 images) and Flickr30k (1,000 images).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mmsearch.models.encoders.registry import BUILTIN, VIEWS_SUFFIX, is_present

Speed = Literal["fast", "medium", "slow", "GPU"]

SUGGESTED = "ViT-B-32-SigLIP2-256/webli"
"""What to name to somebody who asks for better answers than the built-in encoder gives: free to use, and
indexing stays possible on a CPU. Reads many languages."""
SUGGESTED_ENGLISH = "ViT-B-16-SigLIP/webli"
"""The same for English alone: half the download."""
ENGLISH, SOME, MANY = "English", "English, some", "100+ languages"

OPEN_CLIP_TABLE = "open_clip docs/openclip_retrieval_results.csv"
MOBILECLIP_TABLE = "apple/ml-mobileclip results"
SIGLIP2_TABLE = "google-research/big_vision README_siglip2.md"
PE_TABLE = "facebookresearch/perception_models README.md"


@dataclass(frozen=True)
class ModelRow:
    """One recommended model.

    ``image_size`` pixels of the square input; ``parameters_m`` millions; ``download_mb`` 10⁶ bytes of float32
    weights, 0 for what ships; ``image_gflops`` 10⁹ operations an image (two a multiply-add); recalls in percent,
    ``None`` where the source does not publish them. ``languages``: those of the texts that it was trained on.
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
    languages: str = ENGLISH

    @property
    def speed(self) -> Speed:
        """Indexing speed on a CPU: ``fast`` up to 12 GFLOP an image, ``medium`` to 40, ``slow`` to 200."""
        limits: tuple[tuple[float, Speed], ...] = ((12, "fast"), (40, "medium"), (200, "slow"))
        return next((speed for limit, speed in limits if self.image_gflops <= limit), "GPU")


_BUILTIN_SOURCE = "recall@1 33.3 on Flickr8k dev, less in zh, de, fr, es, cs, ar, ru, ja (docs/measured.md)"
_VIEWS_SOURCE = "recall@1 35.6 on Flickr8k dev (docs/measured.md)"
_BUILTIN_LICENCE = "Apache-2.0; learned from Flickr8k: commercial use see its model card"
_APPLE = "Apple AMLR (research only)"
ROWS = (
    ModelRow(
        BUILTIN, 260, 896, 39.7, 0, 1.7, None, None, _BUILTIN_LICENCE, _BUILTIN_SOURCE, present=True, languages=SOME,
    ),
    ModelRow(
        "MobileCLIP2-S0/dfndr2b", 256, 512, 74.8, 300, 4.8, 43.7, 69.2, _APPLE,
        MOBILECLIP_TABLE, "timm/MobileCLIP2-S0-OpenCLIP",
    ),
    ModelRow(
        BUILTIN + VIEWS_SUFFIX, 260, 896, 39.7, 0, 5.1, None, None, _BUILTIN_LICENCE, _VIEWS_SOURCE, present=True,
        languages=SOME,
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
        SIGLIP2_TABLE, "timm/ViT-B-32-SigLIP2-256", languages=MANY,
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
        SIGLIP2_TABLE, "timm/ViT-B-16-SigLIP2", languages=MANY,
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
        SIGLIP2_TABLE, "timm/ViT-SO400M-14-SigLIP2-378", languages=MANY,
    ),
)  # fmt: skip


def list_models() -> list[ModelRow]:
    """The recommended models, cheapest first, with ``present`` as it is on this machine now."""
    return [row if row.present else replace(row, present=is_present(row.name)) for row in ROWS]

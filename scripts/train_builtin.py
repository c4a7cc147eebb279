"""Makes the shipped built-in encoder from version 0: ``python scripts/train_builtin.py FLICKR8K VERSION0 OUTPUT``.

FLICKR8K holds ``images/``, ``captions.tsv`` (columns image and caption), ``train.txt`` and ``dev.txt``; VERSION0 is
what ``scripts/export_builtin.py`` wrote. Each stage is one run of what ``mmsearch train`` runs, printed before it
starts; OUTPUT gets one folder a stage, and the last one is the encoder. On two CPU cores this takes about an hour.

1. The joint space is learned from nothing: the projections, the last stage of the image tower, copies of the last
   three text layers. Besides captions it learns from single words (those that captions of 15 images share) and from
   the names of ImageNet classes, weighed by what the classifier says of each picture.
2. One more stage of the image tower learns, with smaller steps.
"""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from pathlib import Path

COMMON = """--batch-size 512 --views 4 --scale 20 --average 0.99 --seed 0
    --precision bf16 --threads 2 --device cpu"""
STAGES = {
    "stage1": "--learns last:1,3 --epochs 13 --rate 1e-3 --tower-rate 2e-4 --words 0.6",
    "stage2": "--learns last:2,3 --epochs 8 --rate 4e-4 --tower-rate 1e-4 --words 1.0",
}


def write_split(flickr: Path, name: str, target: Path) -> Path:
    """One split as a table, its images in the order of the official list."""
    captions: dict[str, list[str]] = {}
    with (flickr / "captions.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            captions.setdefault(row["image"], []).append(row["caption"])
    images = (flickr / f"{name}.txt").read_text(encoding="utf-8").split()
    lines = [f"{image}\t{caption}\n" for image in images for caption in captions[image]]
    table = target / f"{name}.tsv"
    table.write_text("image\tcaption\n" + "".join(lines), encoding="utf-8")
    return table


def main(flickr: Path, version0: Path, output: Path) -> None:
    """Runs the stages one after another; a stage that is done is not repeated."""
    output.mkdir(parents=True, exist_ok=True)
    train, dev = (write_split(flickr, name, output) for name in ("train", "dev"))
    model = version0
    for name, options in STAGES.items():
        if not (output / name / "encoder.json").is_file():
            places = ["--dev", dev, "--images", flickr / "images", "--model", model, "--output", output / name]
            command = [sys.executable, "-m", "mmsearch", "train", train, *places, "--resume"]
            command += [*COMMON.split(), *options.split()]
            sys.stderr.write(shlex.join(map(str, command)) + "\n")
            subprocess.run(list(map(str, command)), check=True)
        model = output / name


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python scripts/train_builtin.py FLICKR8K VERSION0 OUTPUT")
    main(*map(Path, sys.argv[1:]))

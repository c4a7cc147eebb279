"""Makes the shipped built-in encoder from version 0: ``python scripts/train_builtin.py FLICKR8K VERSION0 OUTPUT``.

FLICKR8K holds ``images/``, ``captions.tsv`` (columns image and caption), ``train.txt`` and ``dev.txt``; VERSION0 is
what ``scripts/export_builtin.py`` wrote. This is ``mmsearch train`` twice, printed before each starts; OUTPUT gets the
two tables and the folders ``version1`` and ``version2``. On two CPU cores each takes about half an hour.

Version 1 learns the joint space from nothing: the projections, the last stage of the image encoder, copies of the last
three text layers. Besides captions it learns from single words (those that the captions of 15 images share) and from
the names of ImageNet classes, weighed by what the classifier says of each picture. Version 2 goes on from there with
one stage of the image encoder more, smaller views and made-up pictures of all classes, and ends halfway between the
weights before and after.
"""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from pathlib import Path

COMMON = "--views 4 --words 0.6 --average 0.99 --device cpu"
VERSION1 = """--learns last:1,3 --epochs 20 --patience 1 --batch-size 512 --scale 20 --rate 1e-3 --encoder-rate 2e-4
    --seed 0 --precision bf16 --threads 1"""
VERSION2 = """--learns last:2,3 --epochs 9 --patience 2 --batch-size 384 --scale 21 --rate 5e-4 --encoder-rate 2e-4
    --view-size 224 --blend 0.5 --seed 7 --precision fp32 --threads 2"""


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
    """Writes the tables and trains; a run that was interrupted goes on."""
    output.mkdir(parents=True, exist_ok=True)
    train, dev = (write_split(flickr, name, output) for name in ("train", "dev"))
    start = version0
    for name, options in (("version1", VERSION1), ("version2", VERSION2)):
        places = ["--dev", dev, "--images", flickr / "images", "--model", start, "--output", output / name, "--resume"]
        settings = [*COMMON.split(), *options.split()]
        command = list(map(str, [sys.executable, "-m", "mmsearch", "train", train, *places, *settings]))
        sys.stderr.write(shlex.join(command) + "\n")
        subprocess.run(command, check=True)
        start = output / name


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python scripts/train_builtin.py FLICKR8K VERSION0 OUTPUT")
    main(*map(Path, sys.argv[1:]))

"""Indexing end to end against the image encoder alone: ``python benchmarks/ingest_rate.py [--rounds 5]``.

Both are measured in one process with the same encoder object, taking turns, so that a machine that slows down
slows both. Encoder alone: ``encode_prepared`` over arrays that are ready in memory, in the same batch size, a batch
after the other. End to end: ``Index.add`` of a new index from JPEG files (in the system's cache) to the last
commit and whatever `add` does after it; ``ratio_of_pipeline`` leaves out what is done once an index, not once an
image (``once_an_index_s``), which weighs the less the larger the folder.

An encoder that fills all cores by itself leaves none for decoding, so on such a machine the ratio has a ceiling: the
encoder's processor time over that and the processor time of hashing, decoding and resizing, each measured alone on
one thread (``ceiling_on_full_cores``). ``pipeline_processor_ratio`` is what the pipeline makes of it, in processor
seconds, which other programs on the machine disturb less than wall seconds. ``--threads 1`` leaves cores to reading, on
both sides of the comparison, and so says whether the encoder ever waits; its result is a file of its own.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from common.photos import real_photos, write_jpegs
from common.timing import in_turns

from mmsearch import EncoderOptions, Index, IngestOptions, open_encoder
from mmsearch.ingest import ingest
from mmsearch.media import decoder_for
from mmsearch.media.base import DecodeOptions
from mmsearch.models.encoders.base import Encoder
from mmsearch.sources import hash_of

SETS = {"640x480": (640, 480), "12 megapixels": (4000, 3000)}
BARS = {"640x480": 0.90, "12 megapixels": 0.70}


def ready_arrays(encoder: Encoder, files: list[Path]) -> np.ndarray:
    """The model inputs of all files, stacked."""
    options = DecodeOptions(min_side=encoder.input_size)
    arrays = []
    for file in files:
        decoder = decoder_for(file)
        assert decoder is not None
        for segment in decoder.decode(file, options).segments:
            assert segment.image is not None
            arrays.append(encoder.prepare_image(segment.image))
    return np.stack(arrays)


def encoder_alone(encoder: Encoder, arrays: np.ndarray) -> None:
    """One pass over all arrays."""
    for start in range(0, len(arrays), encoder.batch_size):
        encoder.encode_prepared(arrays[start : start + encoder.batch_size])


def end_to_end(encoder: Encoder, folder: Path, images: int, options: IngestOptions) -> dict[str, float]:
    """Indexes a folder into a new index; the busy seconds of its stages."""
    place = Path(tempfile.mkdtemp(prefix="mmsearch-rate-"))
    try:
        with Index.open(place / "index", create=True, encoder=encoder) as index:
            before = time.process_time()
            report = ingest(index._directory, encoder, [folder], options)
            pipeline = time.process_time() - before
            index._after_adding(report, encoder)  # both together are `Index.add`
        if report.indexed != images:
            raise SystemExit(f"expected {images} indexed images, got {report.indexed}: {report.skipped[:3]}")
        return {**report.seconds, "pipeline_cpu": pipeline}
    finally:
        shutil.rmtree(place)


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, processor seconds and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def processor_seconds_of_reading(encoder: Encoder, files: list[Path]) -> dict[str, float]:
    """Hashing, decoding and resizing on one thread with nothing beside it: milliseconds of processor an image."""
    options, spent = DecodeOptions(min_side=encoder.input_size), {"hash": 0.0, "decode": 0.0, "prepare": 0.0}
    for file in files:
        decoder = decoder_for(file)
        assert decoder is not None
        marks = [time.thread_time()]
        data = file.read_bytes()
        hash_of(data)
        marks.append(time.thread_time())
        image = next(decoder.decode(file, options, data).segments).image
        assert image is not None
        marks.append(time.thread_time())
        encoder.prepare_image(image)
        marks.append(time.thread_time())
        for number, name in enumerate(spent):
            spent[name] += marks[number + 1] - marks[number]
    return {name: round(1e3 * seconds / len(files), 2) for name, seconds in spent.items()}


def measure(encoder: Encoder, files: list[Path], rounds: int, options: IngestOptions) -> dict[str, Any]:
    """The figures of one set of files."""
    arrays, folder, images = ready_arrays(encoder, files), files[0].parent, len(files)
    reading = processor_seconds_of_reading(encoder, files)
    turns = in_turns(
        {
            "alone": lambda: timed(lambda: encoder_alone(encoder, arrays)),
            "whole": lambda: timed(lambda: end_to_end(encoder, folder, images, options)),
        },
        rounds,
    )
    alone, whole, stages = turns["alone"], turns["whole"], [seconds for _, _, seconds in turns["whole"]]
    ratios = [one[0] / other[0] for one, other in zip(alone, whole, strict=True)]
    encoder_ms = 1e3 * statistics.median(one[1] for one in alone) / images
    cpu_ratios = [one[1] / other[1] for one, other in zip(alone, whole, strict=True)]
    return {
        "images": images,
        "megabytes_a_file": round(statistics.mean(file.stat().st_size for file in files) / 1e6, 3),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_of_pipeline": round(
            statistics.median(one[0] / seconds["total"] for one, seconds in zip(alone, stages, strict=True)), 3
        ),
        "once_an_index_s": round(
            statistics.median(one[0] - seconds["total"] for one, seconds in zip(whole, stages, strict=True)), 3
        ),
        "ceiling_on_full_cores": round(encoder_ms / (encoder_ms + sum(reading.values())), 3),
        "pipeline_processor_ratio": round(
            statistics.median(one[1] / seconds["pipeline_cpu"] for one, seconds in zip(alone, stages, strict=True)),
            3,
        ),
        "reading_cpu_ms_an_image": reading,
        "ratio_of_fastest": round(min(one[0] for one in alone) / min(one[0] for one in whole), 3),
        "ratio_rounds": [round(ratio, 3) for ratio in ratios],
        "ratio_of_processor_seconds": round(statistics.median(cpu_ratios), 3),
        "encoder_images_per_s": round(images / statistics.median(one[0] for one in alone), 1),
        "end_to_end_images_per_s": round(images / statistics.median(one[0] for one in whole), 1),
        "encoder_cpu_ms_an_image": round(1e3 * statistics.median(one[1] for one in alone) / images, 2),
        "end_to_end_cpu_ms_an_image": round(1e3 * statistics.median(one[1] for one in whole) / images, 2),
        "stage_busy_ms_an_image": {
            name: round(1e3 * statistics.median(seconds[name] for seconds in stages) / images, 2) for name in stages[0]
        },
    }


def main() -> int:
    """Measures, prints, writes the result; exit code 1 when a bar is missed."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=256, help="of 640 × 480; half as many of 12 megapixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--threads", type=int, help="threads of the encoder")
    parser.add_argument("--readers", type=int, help="decode threads")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--only", choices=sorted(SETS))
    arguments = parser.parse_args()

    encoder = open_encoder(arguments.model, EncoderOptions(threads=arguments.threads, batch_size=arguments.batch_size))
    options = IngestOptions(readers=arguments.readers)
    work = Path(tempfile.mkdtemp(prefix="mmsearch-photos-"))
    figures: dict[str, Any] = {}
    try:
        for name, size in SETS.items():
            if arguments.only in (None, name):
                count = arguments.images if name == "640x480" else max(8, arguments.images // 2)
                files = write_jpegs(work / name, count, size)
                figures[name] = measure(encoder, files, arguments.rounds, options)
                print(f"{name}: " + "\n    ".join(f"{key}: {value}" for key, value in figures[name].items()))
    finally:
        shutil.rmtree(work)
    passed = all(found["ratio_median"] >= BARS[name] for name, found in figures.items())
    content = {
        "model": arguments.model,
        "batch_size": encoder.batch_size,
        "threads": arguments.threads,
        "readers": arguments.readers,
        "rounds": arguments.rounds,
        "images_are": "photos with pixel noise" if real_photos() else "generated",
        "load_average": round(os.getloadavg()[0], 1),
        "bars": BARS,
        "passed": passed,
        "sets": figures,
    }
    publish("ingest_rate" + (f"_threads_{arguments.threads}" if arguments.threads else ""), content, arguments)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

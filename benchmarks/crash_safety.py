"""``kill -9`` at random moments of indexing: ``python benchmarks/crash_safety.py [--kills 50] [--images 2000]
[--videos 40]``.

First the images and videos are indexed undisturbed. Then the same command runs again and again on another index, and
each run is killed at a random moment, up to a longest life which lets the whole chain of runs get through the folder
about once. When a chain has finished the folder before all kills are spent, the next one starts an index anew.
After every kill the index is read as it lies there, and compared with what was committed before: nothing may be
lost, changed or there twice, no video half, and `verify` may find nothing but files that are not indexed yet and
bytes that were never committed. Finished indexes must equal the undisturbed one, and `verify` must find them clean.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from common.photos import real_photos, write_jpegs, write_videos

from mmsearch import Index
from mmsearch.store.local.directory import IndexDirectory

COMMIT_SECONDS = 1.0
"""How often a run commits; a life must be able to outlast it."""
TOLERANCE = 1e-3
"""Half precision rounds a unit vector's values by at most 2⁻¹² ≈ 2.4e-4; twice that, and the encoder's own noise."""

HARMLESS = {"new file", "uncommitted bytes"}
"""What `verify` may find after a kill."""

Vectors = dict[tuple[str, int], np.ndarray]
"""(path, number of the segment) → vector."""


@dataclass
class Tally:
    """What the whole benchmark found."""

    kills_during_indexing: int = 0
    kills_before_the_index_existed: int = 0
    committed_at_kill: list[int] = field(default_factory=list)
    lost: int = 0
    changed: int = 0
    duplicates: int = 0
    rows_without_document: int = 0
    half_videos: int = 0
    verified: int = 0
    damages_that_verify_found: int = 0
    differences_in_finished_indexes: int = 0
    finished_indexes: int = 0
    documents_missing_or_extra: int = 0
    largest_difference: float = 0.0
    vectors_beyond_tolerance: int = 0


def start(photos: Path, place: Path) -> subprocess.Popen[str]:
    """The command under test."""
    return subprocess.Popen(
        [sys.executable, "-m", "mmsearch", "index", str(photos), "--index", str(place), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "MMSEARCH_INDEX": ""},
    )  # fmt: skip


def complete(photos: Path, place: Path) -> tuple[dict[str, Any], float]:
    """Runs the command to its end; its report and wall seconds."""
    started = time.perf_counter()
    output, errors = (process := start(photos, place)).communicate()
    if process.returncode != 0:
        raise SystemExit(f"indexing failed with exit code {process.returncode}: {errors[-2000:]}")
    return json.loads(output), time.perf_counter() - started


def committed(place: Path, tally: Tally) -> Vectors:
    """Vectors of all committed documents; counts what is there twice or belongs to nobody."""
    if not IndexDirectory.exists(place):
        return {}
    index = IndexDirectory.open(place)
    try:
        space = index.space()
        matrix = index.matrix(space)
        found = index.catalogue.find_rows(space.id, range(space.row_count))
        documents = [
            known.path for root in index.catalogue.roots() for known in index.catalogue.documents_below(root.id)
        ]
    finally:
        index.close()
    tally.duplicates += sum(times - 1 for times in Counter(documents).values())
    tally.duplicates += sum(times - 1 for times in Counter(segment.row for segment in found).values())
    parts = Counter((segment.path, segment.ordinal) for segment in found)
    tally.duplicates += sum(times - 1 for times in parts.values())
    tally.rows_without_document += space.row_count - len({segment.row for segment in found})
    tally.lost += len(set(documents) - {segment.path for segment in found})
    return {(segment.path, segment.ordinal): np.array(matrix[segment.row]) for segment in found}


def verify_killed(place: Path, undisturbed: Vectors, found: Vectors, tally: Tally) -> None:
    """What `verify` says of an index as a kill left it; and whether every video is there whole or not at all."""
    whole, there = Counter(path for path, _ in undisturbed), Counter(path for path, _ in found)
    tally.half_videos += sum(there[path] != whole[path] for path in there)
    if IndexDirectory.exists(place):
        with Index.open(place) as index:
            verdict = index.verify()
        tally.verified += 1
        tally.damages_that_verify_found += sum(one.kind not in HARMLESS for one in verdict.differences)


def compare_over_kill(before: Vectors, after: Vectors, tally: Tally) -> None:
    """What was committed before must still be there, to the bit."""
    tally.lost += len(before.keys() - after.keys())
    tally.changed += sum(not np.array_equal(vector, after[path]) for path, vector in before.items() if path in after)


def compare_with_undisturbed(undisturbed: Vectors, found: Vectors, tally: Tally) -> None:
    """The same documents, and for each the same vectors within half precision."""
    tally.finished_indexes += 1
    tally.documents_missing_or_extra += len(undisturbed.keys() ^ found.keys())
    for path in undisturbed.keys() & found.keys():
        difference = np.abs(undisturbed[path].astype(np.float32) - found[path].astype(np.float32)).max()
        tally.largest_difference = max(tally.largest_difference, float(difference))
        tally.vectors_beyond_tolerance += difference > TOLERANCE


def kill_and_resume(
    photos: Path, work: Path, undisturbed: Vectors, kills: int, longest: float, chance: random.Random
) -> Tally:
    """The chains of killed runs."""
    tally, chain = Tally(), 0
    place, before = work / "killed-0", Vectors()
    while tally.kills_during_indexing < kills:
        process = start(photos, place)
        try:
            process.communicate(timeout=chance.uniform(0.0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        was_killed = process.returncode == -signal.SIGKILL
        if not was_killed and process.returncode != 0:
            raise SystemExit(f"a run after a kill failed with exit code {process.returncode}")
        after = committed(place, tally)
        compare_over_kill(before, after, tally)
        before = after
        verify_killed(place, undisturbed, after, tally)
        if was_killed:
            tally.kills_during_indexing += 1
            tally.kills_before_the_index_existed += not IndexDirectory.exists(place)
            tally.committed_at_kill.append(len(after))
            print(f"kill {tally.kills_during_indexing}: {len(after)} segments committed", flush=True)
        else:
            compare_with_undisturbed(undisturbed, after, tally)
            tally.differences_in_finished_indexes += len(differences(place))
            chain += 1
            place, before = work / f"killed-{chain}", {}
    report, _ = complete(photos, place)
    after = committed(place, tally)
    compare_over_kill(before, after, tally)
    compare_with_undisturbed(undisturbed, after, tally)
    tally.differences_in_finished_indexes += len(differences(place))
    files = len({path for path, _ in before})
    if report["unchanged"] != files:
        print(f"note: {report['unchanged']} files taken as unchanged, {files} were committed")
    return tally


def differences(place: Path) -> list[str]:
    """What the command finds, with every file read again."""
    command = [sys.executable, "-m", "mmsearch", "verify", "--bytes", "--json", "--index", str(place)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return [one["kind"] for one in json.loads(found.stdout)["differences"]]


def main() -> int:
    """Measures, prints, writes the result; exit code 1 when anything was lost, doubled or different."""
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    work = Path(tempfile.mkdtemp(prefix="mmsearch-crash-"))
    try:
        photos = work / "photos"
        write_jpegs(photos, arguments.images, (320, 240), arguments.seed)
        write_videos(photos / "videos", arguments.videos, seed=arguments.seed)
        report, seconds = complete(photos, work / "undisturbed")
        print(f"undisturbed: {report['indexed']} files in {seconds:.1f} s", flush=True)
        startup = complete(photos, work / "undisturbed")[1]
        undisturbed = committed(work / "undisturbed", Tally())
        longest = startup + COMMIT_SECONDS + 2 * (seconds - startup) / arguments.kills
        tally = kill_and_resume(photos, work, undisturbed, arguments.kills, longest, random.Random(arguments.seed))
    finally:
        shutil.rmtree(work)
    flaws = (
        "lost", "changed", "duplicates", "rows_without_document", "documents_missing_or_extra", "half_videos",
        "damages_that_verify_found", "differences_in_finished_indexes",
    )  # fmt: skip
    passed = not any(getattr(tally, flaw) for flaw in flaws) and not tally.vectors_beyond_tolerance
    figures = {
        "options": {
            "kills": arguments.kills,
            "images": arguments.images,
            "videos": arguments.videos,
            "seed": arguments.seed,
        },
        "images_are": "photos with pixel noise" if real_photos() else "generated",
        "undisturbed_s": round(seconds, 2),
        "longest_life_s": round(longest, 2),
        "passed": passed,
        **asdict(tally),
        "vectors_beyond_tolerance": int(tally.vectors_beyond_tolerance),
    }
    publish("crash_safety", figures, arguments)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

"""Single bits turned by chance in the files of an index: ``python benchmarks/bit_flips.py [--flips 2000]``.

Each time one bit of one file of a fresh copy is turned, `verify` looks at it, and where it finds nothing, questions of
every kind must give what they gave before. The index is that of ``tests/verify/test_bit_flips.py``: photos, texts,
imported vectors, codes, a graph, a calibration.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from common.output import command_line, write_result

from mmsearch.store.local.files import codes as code_file
from tests.support.bit_flips import flip, make_index, results


def main() -> None:
    """Turns bits and prints what came of it."""
    parser = command_line(__doc__)
    parser.add_argument("--flips", type=int, default=2000)
    arguments = parser.parse_args()
    code_file.BLOCK = 128
    with tempfile.TemporaryDirectory() as folder:
        place = make_index(Path(folder))
        pristine = Path(shutil.copytree(place, Path(folder) / "pristine"))
        right = results(place)
        started = time.perf_counter()
        outcomes: Counter[tuple[str, str]] = Counter()
        for seed in range(arguments.flips):
            outcomes[flip(place, pristine, right, seed)] += 1
    for (name, outcome), count in sorted(outcomes.items()):
        print(f"{count:6}  {outcome:10} {name}")
    missed = sum(count for (_, outcome), count in outcomes.items() if outcome == "MISSED")
    print(f"{missed} of {arguments.flips} missed, {time.perf_counter() - started:.0f} s")
    rows = [{"file": name, "outcome": outcome, "count": count} for (name, outcome), count in sorted(outcomes.items())]
    if not arguments.no_write:
        write_result("bit_flips", {"flips": arguments.flips, "missed": missed, "outcomes": rows}, arguments.results)


if __name__ == "__main__":
    main()

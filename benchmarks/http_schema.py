"""How many requests that schemathesis makes from the server's schema are faults of the server: by it and against it.

    python benchmarks/http_schema.py [--cases 10000] [--seconds 600]

A small index of eight pictures, a video and a text. Answers of 500 and above, and those that the schema does not know,
end it with an error. Rounds have other seeds each, until there are so many cases or the time is over.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common.output import command_line, publish

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmsearch.api import Index
from tests.support.colours import COLOURS, ColourEncoder, save_colour
from tests.support.schema_cases import ask_cases
from tests.support.sound import save_video


def main() -> None:
    """See the module."""
    parser = command_line(__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=40, help="of each kind at each address in a round")
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    statuses: Counter[int] = Counter()
    started, rounds = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number, name in enumerate(COLOURS):
            save_colour(folder / "files" / f"{name}.png", name, (40, 30), seed=number)
        save_video(folder / "files" / "film.mp4", ["red", "blue"])
        (folder / "files" / "about.txt").write_text("Everything is red here.")
        with Index.open(folder / "index", create=True, encoder=ColourEncoder()) as index:
            index.add(folder / "files")
            while statuses.total() < given.cases and time.perf_counter() - started < given.seconds:
                ask_cases(index, given.each, lambda status: statuses.update([status]), first=rounds)
                rounds += 1
                print(rounds, statuses.total(), file=sys.stderr)
    figures = {
        "cases": statuses.total(), "rounds": rounds, "seconds": round(time.perf_counter() - started),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "faults": sum(count for status, count in statuses.items() if status >= 500),
    }  # fmt: skip
    publish("http_schema", figures, given)


if __name__ == "__main__":
    main()

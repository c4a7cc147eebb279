"""What `verify` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmsearch.cli.output import count_of, print_json, printable

if TYPE_CHECKING:
    from mmsearch.verify import Difference, Verdict

_EACH = 10


def print_verdict(verdict: Verdict, *, as_json: bool) -> None:
    """What was compared, and the differences by kind, the first of each: `--json` has them all."""
    if as_json:
        rows = [_row(difference) for difference in verdict.differences]
        print_json(
            {
                "clean": verdict.clean,
                "documents": verdict.documents,
                "vectors": verdict.vectors,
                "files": verdict.files,
                "differences": rows,
            }
        )
        return
    compared = f"{count_of(verdict.documents, 'document')}, {count_of(verdict.vectors, 'vector')}, "
    compared += f"{count_of(verdict.files, 'file')} compared"
    if verdict.clean:
        print(f"{compared}: all agree")
        return
    print(f"{compared}: {count_of(len(verdict.differences), 'difference')}")
    by_kind: dict[str, list[Difference]] = {}
    for difference in verdict.differences:
        by_kind.setdefault(difference.kind, []).append(difference)
    for kind, found in by_kind.items():
        print(f"{kind}: {len(found):,}")
        for difference in found[:_EACH]:
            print(f"    {printable(difference.where)}: {printable(difference.detail)}")
        if len(found) > _EACH:
            print(f"    … and {len(found) - _EACH:,} more (all of them with --json)")
    if any(difference.mendable for difference in verdict.differences):
        print("`mmsearch verify --mend` mends what can be mended")


def _row(difference: Difference) -> dict[str, object]:
    return {
        "kind": difference.kind,
        "part": difference.part,
        "where": difference.where,
        "detail": difference.detail,
        "mendable": difference.mendable,
    }

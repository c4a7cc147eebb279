"""What does Ray cost against threads, and what survives when processes, files, clusters and stores fail?

    python benchmarks/scale.py cpu --photos DIR [--files 700]      CPU seconds and vectors, Ray and threads
    python benchmarks/scale.py kills --photos DIR [--rounds 5]     kill -9 an actor, the driver; the same command again
    python benchmarks/scale.py poison --photos DIR                 1 file that ends its process, 200 damaged, 200 good
    python benchmarks/scale.py full --photos DIR                   a cluster without a free CPU
    python benchmarks/scale.py nodes --photos DIR                  two simulated nodes, one lost in the middle
    python benchmarks/scale.py s3 [--files 10000]                  a bucket, every twentieth answer of it a 503

Each mode writes ``results/scale_MODE.json``. CPU seconds are those of all processes of a run, Ray's own among them:
they bear a mark in their environment, and are looked at ten times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from common.output import command_line, publish

from mmsearch.api import Index
from mmsearch.core.errors import ResourceShortage
from mmsearch.ingest import IngestOptions

ROOT = Path(__file__).parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
MARK = "MMSEARCH_BENCHMARK"


def marked(mark: str) -> Iterator[tuple[int, str, float]]:
    """Processes with a mark: number, command, CPU seconds."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                    yield int(folder.name), command, (int(fields[11]) + int(fields[12])) / TICKS
            except OSError:
                continue


class Run:
    """`mmsearch index` in a process of its own, and what it costs with all that it starts."""

    def __init__(self, photos: Path, index: Path, *more: str) -> None:
        self.mark = uuid.uuid4().hex
        environment = {**os.environ, MARK: self.mark, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mmsearch", "index", str(photos), "--index", str(index), "--json", *more]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.seconds: dict[int, tuple[str, float]] = {}
        self.started = time.monotonic()

    def look(self) -> None:
        """Notes what each process has used."""
        for number, command, seconds in marked(self.mark):
            self.seconds[number] = (command, seconds)

    def wait(self, until: float = 1800) -> dict[str, Any]:
        """The end of the run, its report and its cost."""
        while self.process.poll() is None and time.monotonic() - self.started < until:
            self.look()
            time.sleep(0.1)
        ended = self.process.poll() is not None
        output = self.process.communicate()[0] if ended else ""
        actors = sum(seconds for command, seconds in self.seconds.values() if command.startswith("ray::"))
        return {
            "ended": ended, "code": self.process.returncode, "report": json.loads(output) if output.strip() else None,
            "cpu_s": round(sum(seconds for _, seconds in self.seconds.values()), 1), "actors_cpu_s": round(actors, 1),
            "wall_s": round(time.monotonic() - self.started, 1),
        }  # fmt: skip

    def clean(self) -> None:
        """Ends what a killed driver has left behind."""
        for number, _, _ in marked(self.mark):
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue


def vectors(index: Path) -> dict[str, bytes]:
    """By path, all vectors of a document."""
    found = {}
    with Index.open(index) as opened:
        for part in opened._session.store().export():
            start = 0
            for one in part.documents:
                found[one.path] = part.vectors[start : start + len(one.segments)].tobytes()
                start += len(one.segments)
    return found


def some(photos: Path, count: int, folder: Path) -> Path:
    """``count`` photos under names of their own; where there are fewer, copies with a number after their end."""
    sources = sorted(path for path in photos.rglob("*.jpg"))
    folder.mkdir()
    for number, path in enumerate(islice(cycle(sources), count)):
        data = path.read_bytes()
        copy = number // len(sources)
        (folder / f"{number:06}.jpg").write_bytes(data + (b"%d" % copy if copy else b""))
    return folder


def cpu(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Ray against threads, in turns; the least of each counts, as the machine may be busy."""
    photos = some(options.photos, options.files, home / "photos")
    runs: dict[str, list[dict[str, Any]]] = {"threads": [], "ray": []}
    for number in range(options.rounds):
        for name, more in (("threads", ()), ("ray", ("--engine", "ray"))):
            shutil.rmtree(home / name, ignore_errors=True)
            runs[name].append(Run(photos, home / name, *more).wait())
            runs[name][-1].pop("report")
            print(number, name, runs[name][-1], flush=True)
    same = vectors(home / "threads") == vectors(home / "ray")
    threads, ray = (min(run["cpu_s"] for run in runs[name]) for name in ("threads", "ray"))
    actors = min(run["actors_cpu_s"] for run in runs["ray"])
    return {
        "files": options.files, "runs": runs, "bit_equal": same, "ray_to_threads": round(ray / threads, 3),
        "actors_to_threads": round(actors / threads, 3),
    }  # fmt: skip


def kills(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """The same command again must find all, each once."""
    photos = some(options.photos, options.files, home / "photos")
    outcomes = []
    for number in range(2 * options.rounds):
        victim = ("actor", "driver")[number % 2]
        index = home / f"index{number}"
        run = Run(photos, index, "--engine", "ray")
        killed = None
        while run.process.poll() is None and killed is None:
            time.sleep(0.05)
            if (index / "catalogue.sqlite").exists() and committed(index) > options.files * (1 + number) // 30:
                actors = [pid for pid, command, _ in marked(run.mark) if command.startswith("ray::_Actor")]
                killed = run.process.pid if victim == "driver" else (actors or [None])[0]
                if killed is not None:
                    os.kill(killed, signal.SIGKILL)
        at = committed(index)
        first = run.wait()
        run.clean()
        second = Run(photos, index, "--engine", "ray").wait()
        found = vectors(index)
        outcomes.append(
            {
                "killed": victim if killed else None, "committed_then": at, "first_ended": first["ended"],
                "second_ended": second["ended"] and second["code"] == 0, "found": len(found),
                "lost": options.files - len(found), "segments_doubled": segments(index) - len(found),
            }
        )  # fmt: skip
        print(outcomes[-1], flush=True)
    return {"files": options.files, "rounds_each": options.rounds, "outcomes": outcomes}


def committed(index: Path) -> int:
    """Documents in an index that another process writes to."""
    import sqlite3

    try:
        with sqlite3.connect(f"file:{index / 'catalogue.sqlite'}?mode=ro", uri=True, timeout=0.2) as sql:
            return int(sql.execute("SELECT COUNT(*) FROM documents").fetchone()[0])
    except sqlite3.Error:
        return 0


def segments(index: Path) -> int:
    """All segments of an index."""
    with Index.open(index) as opened:
        return int(opened.status()["documents"]["segments"])


def poison(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """The deadly file is one of the test suite's: no picture that we know ends our decoders."""
    from tests.support.colours import save_colour

    photos = some(options.photos, 200, home / "photos")
    for number in range(200):
        data = bytearray((photos / f"{number:06}.jpg").read_bytes())
        (photos / f"damaged-{number:06}.jpg").write_bytes(bytes(data[: len(data) // 3]) if number % 2 else b"JFIF" * 9)
    local = Run(photos, home / "local", "--model", "tests.support.deadly:DeadlyEncoder").wait()
    save_colour(photos / "deadly.png", "white")
    with_deadly = Run(photos, home / "ray", "--engine", "ray", "--model", "tests.support.deadly:DeadlyEncoder").wait()
    expected, found = local["report"] or {}, with_deadly["report"] or {}
    reasons = [
        {Path(skip["path"]).name: skip["reason"] for skip in report.get("skipped", [])} for report in (expected, found)
    ]
    deadly = reasons[1].pop("deadly.png", None)
    return {
        "good": 200, "damaged": 200, "indexed_threads": expected.get("indexed"), "indexed_ray": found.get("indexed"),
        "deadly": deadly, "same_reasons": reasons[0] == reasons[1], "skipped": len(reasons[1]),
        "wall_s": with_deadly["wall_s"], "same_vectors": vectors(home / "local") == vectors(home / "ray"),
    }  # fmt: skip


def full(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Somebody else has every CPU."""
    import ray

    photos = some(options.photos, 20, home / "photos")
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)

    @ray.remote(num_cpus=2)
    class Busy:
        def here(self) -> bool:
            return True

    try:
        busy = Busy.remote()
        ray.get(busy.here.remote())
        started = time.monotonic()
        try:
            with Index.open(home / "index", create=True, encoder="builtin") as index:
                index.encoder()
                started = time.monotonic()
                index.add(photos, options=IngestOptions(engine="ray"))
            said = None
        except ResourceShortage as error:
            said = str(error)
        return {"seconds": round(time.monotonic() - started, 2), "said": said}
    finally:
        ray.shutdown()


def nodes(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Two nodes of one CPU; the second is lost when a third of the files is committed."""
    import threading

    import ray
    from ray.cluster_utils import Cluster

    photos = some(options.photos, options.files, home / "photos")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200_000_000})
    second = cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
    ray.init(cluster.address, log_to_driver=False)
    lost_at: list[int] = []

    def lose() -> None:
        while committed(home / "index") < options.files // 3:
            time.sleep(0.2)
        lost_at.append(committed(home / "index"))
        cluster.remove_node(second, allow_graceful=False)

    try:
        thread = threading.Thread(target=lose, daemon=True)
        with Index.open(home / "index", create=True, encoder="builtin") as index:
            thread.start()
            report = index.add(photos, options=IngestOptions(engine="ray"))
        thread.join(60)
        found = vectors(home / "index")
        return {
            "files": options.files, "lost_when_committed": lost_at, "indexed": report.indexed,
            "skipped": len(report.skipped), "lost": options.files - len(found),
        }  # fmt: skip
    finally:
        ray.shutdown()
        cluster.shutdown()


def s3(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Moto's server, in threads of this process: its CPU seconds are among those of the run."""
    from tests.support.colours import COLOURS, ColourEncoder, save_colour
    from tests.support.s3 import s3_server

    names = list(COLOURS)
    with s3_server() as server:
        for number in range(options.files):
            save_colour(home / "one.png", names[number % len(names)], seed=number)
            server.put("photos", f"flat/{number:06}.png", (home / "one.png").read_bytes())
        server.asked.clear()
        server.share = 0.05
        with Index.open(home / "index", create=True, encoder=ColourEncoder()) as index:
            started, used = time.monotonic(), time.process_time()
            report = index.add("s3://photos/flat")
            took, asked = time.monotonic() - started, dict(server.asked)
            server.asked.clear()
            again = index.add("s3://photos/flat")
            return {
                "objects": options.files, "indexed": report.indexed, "skipped": len(report.skipped), "asked": asked,
                "wall_s": round(took, 1), "second": {"unchanged": again.unchanged, "asked": dict(server.asked)},
                "cpu_s_with_server": round(time.process_time() - used, 1),
            }  # fmt: skip


MODES = {"cpu": cpu, "kills": kills, "poison": poison, "full": full, "nodes": nodes, "s3": s3}

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    parser = command_line(__doc__)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--photos", type=Path, help="a folder of real photos")
    parser.add_argument("--files", type=int, default=700)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmsearch-scale-") as place:
        before = os.getloadavg()
        figures = MODES[chosen.mode](chosen, Path(place))
        publish(f"scale_{chosen.mode}", {**figures, "load": [before, os.getloadavg()]}, chosen)

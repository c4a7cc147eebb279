"""What does Ray cost against threads, and what survives when processes, files, clusters and stores fail?

    python benchmarks/scale.py cpu --photos DIR [--files 700]      CPU seconds and vectors, Ray and threads
    python benchmarks/scale.py kills --photos DIR [--rounds 20]    kill -9 an actor, the driver; the same command again
    python benchmarks/scale.py poison --photos DIR                 1 of 500 that ends its process; 200 damaged, 200 good
    python benchmarks/scale.py full --photos DIR                   a cluster without a free CPU, and with one
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
        beginning = output.find('{"schema"')  # Ray may have said something before
        actors = sum(seconds for command, seconds in self.seconds.values() if command.startswith("ray::"))
        return {
            "ended": ended, "code": self.process.returncode,
            "report": json.loads(output[beginning:]) if beginning >= 0 else None,
            "lines_before_it": output[: max(0, beginning)].count("\n"),
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
    """The same command again, at once, must find all, each once. Kills are spread over the run, its start included;
    where the run was over before, that round is tried again. Every fifth run starts Ray itself, the others join a
    cluster that stays. ``--more`` adds to the rounds of the last result.
    """
    from ray.cluster_utils import Cluster

    photos = some(options.photos, options.files, home / "photos")
    os.environ |= {MARK: "cluster", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 200_000_000})
    last = options.results / "scale_kills.json"
    outcomes: list[dict[str, Any]] = json.loads(last.read_text())["outcomes"] if options.more else []
    missed = 0
    try:
        for victim in ("actor", "driver"):
            while (turn := sum(one["killed"] == victim for one in outcomes)) < options.rounds and missed < 20:
                outcomes.append(kill(options, home, photos, victim, turn, cluster.address))
                missed += outcomes[-1]["killed"] is None
    finally:
        cluster.shutdown()
    totals = {
        f"{victim}s": {
            "killed": len(own := [one for one in outcomes if one["killed"] == victim]),
            "lost": sum(one["lost"] for one in own), "doubled": sum(one["segments_doubled"] for one in own),
            "first_ended_well": sum(one["first_code"] == 0 for one in own),
            "second_ended_well": sum(one["second_ended"] for one in own),
        }
        for victim in ("actor", "driver")
    }  # fmt: skip
    return {
        "files": options.files,
        **totals,
        "over_before_the_kill": sum(one["killed"] is None for one in outcomes),
        "outcomes": outcomes,
    }


def kill(options: argparse.Namespace, home: Path, photos: Path, victim: str, turn: int, cluster: str) -> dict[str, Any]:
    """One kill, and the same command again."""
    index, engine = home / "index", "ray" if turn % 5 == 4 else cluster
    run = Run(photos, index, "--engine", engine)
    killed = kill_when(run, index, victim, options.files * turn // options.rounds * 3 // 5)
    at = committed(index)
    first = run.wait(300)
    second = Run(photos, index, "--engine", engine).wait(300)
    left = [command.split()[0] for _, command, _ in marked(run.mark)]
    run.clean()
    found = vectors(index)
    outcome = {
        "killed": killed, "own_cluster": engine == "ray", "committed_then": at, "first_ended": first["ended"],
        "first_code": first["code"], "second_ended": second["ended"] and second["code"] == 0, "found": len(found),
        "lost": options.files - len(found), "segments_doubled": segments(index) - len(found), "processes_left": left,
        "wall_s": [first["wall_s"], second["wall_s"]],
    }  # fmt: skip
    print(turn, outcome, flush=True)
    shutil.rmtree(index)
    return outcome


def kill_when(run: Run, index: Path, victim: str, from_: int) -> str | None:
    """Kills once more than so many files are committed, and there is an actor; what was killed, if anything."""
    while run.process.poll() is None:
        time.sleep(0.05)
        if from_ == 0 or committed(index) > from_:
            there = (*marked(run.mark), *marked("cluster"))
            actors = [pid for pid, command, _ in there if command.startswith("ray::_Actor")]
            if actors:
                os.kill(run.process.pid if victim == "driver" else actors[0], signal.SIGKILL)
                return victim
    return None


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

    deadly_model = ("--model", "tests.support.deadly:DeadlyEncoder")
    photos = some(options.photos, 499, home / "with one")
    save_colour(photos / "000250-deadly.png", "white")
    found = Run(photos, home / "one", "--engine", "ray", *deadly_model).wait()
    again = Run(photos, home / "one", "--engine", "ray", *deadly_model).wait()
    report = found.pop("report") or {}
    one = {
        "files": 500, "indexed": report.get("indexed"), "skipped": reasons(report), **found,
        "again": {"unchanged": (again["report"] or {}).get("unchanged"), "skipped": reasons(again["report"])},
    }  # fmt: skip

    photos = some(options.photos, 200, home / "with many")
    for number in range(200):
        data = (photos / f"{number:06}.jpg").read_bytes()
        (photos / f"damaged-{number:06}.jpg").write_bytes(damaged(data, number))
    runs = {
        name: Run(photos, home / name, *more, "--model", "tests.support.colours:ColourEncoder").wait()
        for name, more in (("threads", ()), ("ray", ("--engine", "ray")))
    }
    known = {name: reasons(run["report"]) for name, run in runs.items()}
    many = {
        "good": 200, "damaged": 200, **{f"indexed_{name}": run["report"]["indexed"] for name, run in runs.items()},
        "skipped": len(known["ray"]), "kinds_of_reasons": len({*known["ray"].values()}),
        "same_reasons": known["threads"] == known["ray"],
        "same_vectors": vectors(home / "threads") == vectors(home / "ray"),
        "wall_s": {name: run["wall_s"] for name, run in runs.items()},
    }  # fmt: skip
    return {"one_deadly": one, "many_damaged": many}


def damaged(data: bytes, number: int) -> bytes:
    """A third cut off early, a third empty or without a picture's header, a third of which the tables are destroyed."""
    match number % 3:
        case 0:
            return data[: 2 + number % 150]
        case 1:
            return b"" if number % 2 else b"JFIF%d" % number * 9
    return data[:20] + bytes([number]) * 600 + data[620:]


def reasons(report: dict[str, Any] | None) -> dict[str, str]:
    """Of the skipped files, by name."""
    return {Path(skip["path"]).name: skip["reason"] for skip in (report or {}).get("skipped", ())}


def full(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """A run is resumed while somebody else has every CPU, and while there is one left."""
    import ray

    photos = some(options.photos, 40, home / "photos")
    later = [path.rename(home / path.name) for path in sorted(photos.iterdir())[20:]]
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)

    @ray.remote
    class Busy:
        def here(self) -> bool:
            return True

    outcomes = {}
    try:
        with Index.open(home / "index", create=True, encoder="builtin") as index:
            index.add(photos, options=IngestOptions(engine="ray"))
            for path in later:
                path.rename(photos / path.name)
            for cpus, name in ((2, "no CPU free"), (1, "one CPU free")):
                busy = Busy.options(num_cpus=cpus).remote()
                ray.get(busy.here.remote())
                started, indexed, said = time.monotonic(), 0, None
                try:
                    indexed = index.add(photos, options=IngestOptions(engine="ray")).indexed
                except ResourceShortage as error:
                    said = str(error)
                seconds = round(time.monotonic() - started, 2)
                outcomes[name] = {"seconds": seconds, "indexed": indexed, "said": said}
                ray.kill(busy)
        return {"files": 40, "there_before": 20, "outcomes": outcomes, "lost": 40 - len(vectors(home / "index"))}
    finally:
        ray.shutdown()


def nodes(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Two nodes of one CPU; the second is lost when a third of the files is committed."""
    import threading

    import ray
    from ray.cluster_utils import Cluster

    photos = some(options.photos, options.files, home / "photos")
    os.environ |= {MARK: "cluster", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
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
    parser.add_argument("--more", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmsearch-scale-") as place:
        before = os.getloadavg()
        figures = MODES[chosen.mode](chosen, Path(place))
        publish(f"scale_{chosen.mode}", {**figures, "load": [before, os.getloadavg()]}, chosen)

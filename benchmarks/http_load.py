"""How many searches over HTTP a server answers: 8 clients at once, this tree and another one in turns.

    python benchmarks/http_load.py [--before TREE] [--seconds 12] [--rounds 2]

``--before``: a checkout of another commit, for instance of 34a9d3a, the last one before /api/v1. Its server is asked at
the address that it has. Both serve indexes of the same invented vectors, each made by its own tree. Clients keep their
connections and ask 200 different queries, some with filters. CPU seconds are those of the server's process.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from common.output import command_line, publish
from common.timing import percentiles

TREE = Path(__file__).resolve().parents[1]
TOKEN, CLIENTS = "secret", 8
THINGS = ("dog", "lake", "car", "red house", "child", "boat", "mountain", "street at night", "horse", "cat")
PLACES = ("", "in snow", "on a beach", "in a city", "at sunset", "with people", "from above", "in the rain", "indoors",
          "type:image after:2015")  # fmt: skip
KINDS = ("", "photo of ")
FILL = """
import sys
import numpy as np
from mmsearch import Index
place, count = sys.argv[1], int(sys.argv[2])
random = np.random.default_rng(0)
with Index.open(place, create=True, encoder="builtin") as index:
    vectors = random.standard_normal((count, index.encoder_spec.dim)).astype(np.float32)
    rows = [
        {"path": f"/photos/{2004 + n % 20}/IMG_{n}.jpg", "modality": "image", "width": 4000, "height": 3000,
         "taken_at": f"{2004 + n % 20}-{1 + n % 12:02}-01T10:00:00", "camera": f"Camera {n % 12}"}
        for n in range(count)
    ]
    index.add_embeddings(vectors, rows, normalize=True)
"""


class Server:
    """A server of one tree."""

    def __init__(self, tree: Path, folder: Path, count: int) -> None:
        self.environment = {**os.environ, "PYTHONPATH": str(tree), "MMSEARCH_HOME": str(folder), "OMP_NUM_THREADS": "1"}
        place = folder / "index"
        subprocess.run([sys.executable, "-c", FILL, str(place), str(count)], env=self.environment, cwd=tree, check=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mmsearch", "serve", "--index", str(place), "--port", "0", "--token", TOKEN],
            env=self.environment, cwd=tree, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "http://" in line)
        self.port = int(line.partition("http://127.0.0.1:")[2].partition("/")[0])
        self.path = next(path for path in ("/api/v1/search", "/api/search") if self._answers(path))

    def _answers(self, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        status, _ = ask(connection, f"{path}?q=dog")
        connection.close()
        return status == 200

    def cpu_s(self) -> float:
        """Seconds of user and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Ends it."""
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def ask(connection: http.client.HTTPConnection, address: str) -> tuple[int, bytes]:
    """A status and a body."""
    connection.request("GET", address, headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def load(server: Server, seconds: float) -> dict[str, Any]:
    """What so many seconds of load gave."""
    texts = [f"{kind}{thing} {place}".strip() for kind, thing, place in itertools.product(KINDS, THINGS, PLACES)]
    taken: list[float] = []
    failed: list[int] = []
    sizes: list[int] = []
    started, cpu = time.perf_counter(), server.cpu_s()
    end = started + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for text in itertools.islice(itertools.cycle(texts), number * len(texts) // CLIENTS, None):
            begun = time.perf_counter()
            if begun > end:
                break
            status, body = ask(connection, f"{server.path}?{urlencode({'q': text})}")
            taken.append(time.perf_counter() - begun)
            if status != 200 or not json.loads(body)["hits"]:
                failed.append(status)
            sizes.append(len(body))
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, used = time.perf_counter() - started, server.cpu_s() - cpu
    return {
        "requests": len(taken), "failed": len(failed), "requests_per_s": round(len(taken) / wall, 1),
        **percentiles(taken), "server_cpu_ms_per_request": round(1000 * used / len(taken), 3),
        "bytes": int(np.mean(sizes)),
    }  # fmt: skip


def main() -> None:
    """See the module."""
    parser = command_line(__doc__)
    parser.add_argument("--before", type=Path, help="Another checkout.")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    trees = {"this": TREE, **({"before": given.before.resolve()} if given.before else {})}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as temporary:
        servers: dict[str, Server] = {}
        try:
            for name, tree in trees.items():
                servers[name] = Server(tree, Path(temporary) / name, given.images)
                load(servers[name], 2)  # warm
            for _ in range(given.rounds):
                for name, server in servers.items():
                    runs[name].append(load(server, given.seconds))
        finally:
            for server in servers.values():
                server.stop()
    commits = {
        name: subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, capture_output=True, text=True).stdout.strip()
        for name, tree in trees.items()
    }
    cpu = {name: float(np.median([run["server_cpu_ms_per_request"] for run in each])) for name, each in runs.items()}
    figures: dict[str, Any] = {
        "clients": CLIENTS, "images": given.images, "seconds_a_run": given.seconds,
        "load_average": [round(value, 1) for value in os.getloadavg()], "commits": commits,
        "median_cpu_ms_per_request": cpu, "runs": runs,
    }  # fmt: skip
    if "before" in cpu:
        figures["cpu_of_before"] = round(cpu["this"] / cpu["before"], 3)
    publish("http_load", figures, given)


if __name__ == "__main__":
    main()

"""Lines/s and memory of download and curate beside json + gzip, on lines in the form of 2018.

python -m benchmarks.ingest --lines 50000 --lines 100000 --lines 200000
python -m benchmarks.ingest --lines 15000000 --short --repeats 1
python -m benchmarks.ingest --urls 4000000

The lines are made by a seeded generator: about 3 kB each, as in Amazon's metadata of 2018, or
`--short`, with the columns alone that are read, for the memory of a whole dump. Memory is the peak
of a process per stage; that of a whole dump does not follow from small ones. With `--urls`, one
picture per product is fetched from a server on this machine, in a process of its own, and the stage
is killed in the middle of the first of two runs. Its figures are those of the whole stage, which
also reads the dump (of short lines) and stores the pictures; the stage says on stderr how far it
is.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import requests
import typer
import yaml
from isal import igzip

from benchmarks.picture_server import asked
from benchmarks.timing import tell
from mufin.catalogs.json_rows import PLAIN

ROOT = Path(__file__).parents[1]
WORDS = 3000  # of the invented language
BLOCK = 10_000  # lines that are made at once
PLAIN_URLS = 10_000  # that are fetched by requests alone, at most
INVENTED = "https://images.example"
Row = dict[str, float]


def main(
    lines: Annotated[list[int] | None, typer.Option(help="sizes to measure")] = None,
    urls: Annotated[int, typer.Option(help="pictures to fetch; 0 for none")] = 0,
    related: Annotated[int, typer.Option(help="mean number of related ids of a product")] = 5,
    repeats: int = 3,
    short: Annotated[bool, typer.Option("--short", help="lines of 0.3 kB, made fast")] = False,
    folder: Annotated[Path | None, typer.Option(help="on the disk to measure")] = None,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """Both questions; `lines` are measured one after the other, in processes of their own."""
    figures: dict[str, Row] = {}
    sizes = lines or ([] if urls else [20_000])
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for size in sizes:
            figures |= _stages(Path(place) / str(size), size, related, repeats, short)
        if urls:
            figures |= _fetched(Path(place) / "urls", urls)
    width = "0.3" if short or not sizes else "3"
    tell(f"lines of about {width} kB, {related} related ids each; {urls} URLs", figures, out)


def write_dump(path: Path, lines: int, related: int = 5, seed: int = 0) -> int:
    """Writes `lines` lines in the form of 2018, packed by gzip; their bytes unpacked.

    A third of the related ids are not in the catalog. There are three references of an invented
    host per product.
    """
    rng, size = np.random.default_rng(seed), 0
    words = np.array(["".join(rng.choice(list("abcdefghiklmnoprstuvw"), 6)) for _ in range(WORDS)])
    texts = [" ".join(rng.choice(words, 40)) for _ in range(2000)]
    with gzip.open(path, "wt", compresslevel=6, encoding="utf-8") as file:
        for i in range(lines):
            line = json.dumps(_invented(i, lines, related, texts, rng))
            size += len(line) + 1
            file.write(line + "\n")
    return size


def write_short_dump(
    path: Path, lines: int, related: int = 5, url: str = INVENTED, seed: int = 0
) -> int:
    """As `write_dump`, with the columns alone that are read: a ninth of the bytes, made fast.

    What the stages keep in memory does not depend on the other columns. `url` is that of the
    pictures, one per product.
    """
    rng, size = np.random.default_rng(seed), 0
    words = np.array(["".join(rng.choice(list("abcdefghiklmnoprstuvw"), 6)) for _ in range(WORDS)])
    texts = [" ".join(rng.choice(words, 10)) for _ in range(2000)]
    with igzip.open(path, "wb", compresslevel=1) as file:
        for start in range(0, lines, BLOCK):
            numbers = range(start, min(start + BLOCK, lines))
            block = _short_lines(numbers, lines, related, url, texts, rng)
            size += file.write(block.encode())
    return size


def _short_lines(
    numbers: range, lines: int, related: int, url: str, texts: list[str], rng: np.random.Generator
) -> str:
    counts = rng.poisson(related, len(numbers))
    ids = [f'"B{k:09d}"' for k in rng.integers(lines * 3 // 2, size=counts.sum()).tolist()]
    titles, ends = rng.integers(len(texts), size=len(numbers)), np.cumsum(counts)
    starts = (ends - counts).tolist()
    return "".join(
        f'{{"category": ["Home & Kitchen", "{texts[text][:13]}"], "title": "{texts[text]} {i}", '
        f'"also_buy": [{", ".join(ids[start:end])}], "asin": "B{i:09d}", '
        f'"imageURLHighRes": ["{url}/I/{i:010d}._SL500_.jpg"]}}\n'
        for i, text, start, end in zip(numbers, titles.tolist(), starts, ends.tolist())
    )


def _invented(i: int, lines: int, related: int, texts: list[str], rng: np.random.Generator) -> dict:
    picks = [texts[k] for k in rng.integers(len(texts), size=7)]
    near = rng.integers(lines * 3 // 2, size=rng.poisson(related))
    images = [f"{INVENTED}/I/{i:09d}{k}._SS40_.jpg" for k in range(3)]
    return {
        "category": ["Home & Kitchen", picks[0][:13], picks[1][:20]],
        "tech1": "",
        "description": picks[:3],
        "fit": "",
        "title": f"{picks[3][:70]} &amp; {i}" if i % 20 == 0 else f"{picks[3][:70]} {i}",
        "also_buy": [f"B{k:09d}" for k in near],
        "tech2": "",
        "brand": picks[4][:10],
        "feature": picks[4:6],
        "rank": [f">#{i} in Home & Kitchen (See Top 100)"],
        "also_view": [f"B{k:09d}" for k in near[::-1]],
        "details": {"Shipping Weight:": "1.2 pounds", "Item model number:": f"{i}"},
        "main_cat": "Amazon Home",
        "similar_item": picks[6],
        "date": "January 1, 2018",
        "price": f"${i % 97}.99",
        "asin": f"B{i:09d}",
        "imageURL": images,
        "imageURLHighRes": [image.replace("SS40", "SL500") for image in images],
    }


def _stages(home: Path, lines: int, related: int, repeats: int, short: bool) -> dict[str, Row]:
    """Figures of download and curate, and of json + gzip in turns with download."""
    home.mkdir()
    write = write_short_dump if short else write_dump
    size = write(home / "dump.json.gz", lines, related)
    _settings(home, {"max_images": 0})
    plain, staged = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        _plain(home / "dump.json.gz")
        plain.append(time.perf_counter() - start)
        staged.append(_run("download", home))
    curated = _run("curate", home)
    download = {
        "lines_per_second": lines / float(np.median([run["seconds"] for run in staged])),
        "memory_mb": max(run["memory_mb"] for run in staged),
    }
    json_gzip = lines / float(np.median(plain))
    download["times_json_gzip"] = download["lines_per_second"] / json_gzip
    curate = {"lines_per_second": lines / curated["seconds"], "memory_mb": curated["memory_mb"]}
    (home / "dump.json.gz").unlink()
    return {
        f"json + gzip, {lines} lines": {"lines_per_second": json_gzip, "bytes": size / lines},
        f"download, {lines} lines": download,
        f"curate, {lines} lines": curate,
    }


def _plain(path: Path) -> int:
    """The lines that json reads, nothing kept of them."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return sum(bool(PLAIN.decode(line)) for line in file)


def _settings(home: Path, download: dict) -> None:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["download"] |= {"source": "amazon-2018", "location": "dump.json.gz"} | download
    (home / "params.yaml").write_text(yaml.safe_dump(settings))


def _started(stage: str, home: Path, loud: bool = False) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MUFIN_SCRATCH": str(home / "scratch")}
    command = [sys.executable, "-m", f"pipeline.{stage}"]
    stderr = None if loud else subprocess.DEVNULL
    return subprocess.Popen(command, cwd=home, env=environment, stderr=stderr)


def _run(stage: str, home: Path, loud: bool = False) -> Row:
    """Seconds of a stage without Python's start, its peak of MB, and its processor seconds."""
    process = _started(stage, home, loud)
    processor = _ended(process)["processor"]
    if process.returncode:
        raise SystemExit(f"pipeline.{stage} ended with code {process.returncode}")
    costs = json.loads((home / f"metrics/runtime/{stage}.json").read_text())
    memory = costs["peak_memory_mb"]
    return {"seconds": costs["seconds"], "memory_mb": memory, "processor": processor}


def _ended(process: subprocess.Popen) -> Row:
    """Waits for the end of a process; its processor seconds."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {"processor": used.ru_utime + used.ru_stime}


# Pictures


def _fetched(home: Path, urls: int) -> dict[str, Row]:
    """Requests/s, processor time and memory of a run killed near its middle, and of the next."""
    home.mkdir()
    count = home / "asked"
    command = [sys.executable, "-m", "benchmarks.picture_server", str(count)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert server.stdout
        port = int(server.stdout.readline())
        write_short_dump(home / "dump.json.gz", urls, url=f"http://127.0.0.1:{port}")
        _say(f"a dump of {urls} lines is written; download begins")
        _settings(home, {"max_images": 1, "private_addresses": True, "per_host": 32})
        killed = _killed(home, count, urls // 2)
        before = asked(count)
        _say(f"killed after {before} requests; continued")
        second = _run("download", home, loud=True)
        more = asked(count) - before
        plain = _by_requests(f"http://127.0.0.1:{port}", min(urls, PLAIN_URLS))
    finally:
        server.terminate()
        served = _ended(server)
    return {
        "requests": plain,
        "fetch, killed": _per_request(killed, before),
        "fetch, continued": _per_request(second, more) | {"asked_twice": before + more - urls},
        "its server": {"processor_ms": 1e3 * served["processor"] / (before + more)},
    }


def _by_requests(root: str, urls: int) -> Row:
    """The plain way: the package requests, a session per thread; nothing checked or kept."""
    local, threads = threading.local(), 8

    def get(number: int) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        local.session.get(f"{root}/{number}.jpg", timeout=20).raise_for_status()

    start, processor = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(get, range(urls)))
    return {
        "requests": urls,
        "requests_per_second": urls / (time.perf_counter() - start),
        "processor_ms": 1e3 * (time.process_time() - processor) / urls,
    }


def _killed(home: Path, count: Path, requests: int) -> Row:
    """The costs of download until it has made so many requests, when it is killed."""
    start, process = time.perf_counter(), _started("download", home, loud=True)
    while asked(count) < requests:
        if process.poll() is not None:
            raise SystemExit(f"pipeline.download ended with code {process.returncode}")
        time.sleep(0.01)
    peak = _peak(process)
    process.kill()
    ended, seconds = _ended(process), time.perf_counter() - start
    return ended | {"seconds": seconds, "memory_mb": peak}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _peak(process: subprocess.Popen) -> float:
    """MB; `ru_maxrss` of a child begins at that of its parent."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _per_request(costs: Row, requests: int) -> Row:
    return {
        "requests": requests,
        "requests_per_second": requests / costs["seconds"],
        "processor_ms": 1e3 * costs["processor"] / requests,
        "memory_mb": costs["memory_mb"],
    }


if __name__ == "__main__":
    typer.run(main)

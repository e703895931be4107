"""A product-key table larger than memory, served from the disk: memory of the process, and time for a batch of queries.

    python benchmarks/product_keys.py [--gigabytes 16] [--folder /tmp] [--queries 2048] [--batch 16]

Writes a table of that many 2^30 bytes in full (every row is its own; nothing is sparse), or as large as leaves 4 of
them free, and removes it in the end. The system's cache of it is dropped before it is served, so rows come from the
disk: the bytes that the process had read for it are counted. Serves in a process of its own, whose highest resident
memory is that of Python, torch, the layer and the pages that were looked at. Some rows are compared with what was
written. Then a second process moves rows. Writes benchmarks/results/product_keys.json.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch

from recurra.files import flush
from recurra.memory.mapped import MappedValues, create
from recurra.memory.product_key_memory import ProductKeyMemory

RESULTS = pathlib.Path(__file__).parent / "results"
SIZE, BLOCK, SPARE = 1024, 4096, 4
GIGABYTE = 2**30


def blocks(rows: int) -> Iterator[np.ndarray]:
    """Noise that repeats, with the row's number in front: no two rows are alike, and any can be checked."""
    noise = np.random.default_rng(0).standard_normal((BLOCK, SIZE), dtype=np.float32)
    for first in range(0, rows, BLOCK):
        some = noise[: rows - first]
        some[:, 0] = np.arange(first, first + len(some))
        yield some


def written(keys: int, path: pathlib.Path) -> float:
    """Seconds to write the table."""
    begin = time.perf_counter()
    create(path, keys**2, SIZE, blocks(keys**2))
    return time.perf_counter() - begin


def forget(path: pathlib.Path) -> None:
    """Have the system drop what it keeps of a file."""
    flush(path)
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def memory(field: str) -> int:
    """Bytes of this process: VmHWM is the most that ever was resident."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def read_from_disk() -> int:
    """Bytes that storage gave this process."""
    return int(pathlib.Path("/proc/self/io").read_text().split("read_bytes: ")[1].split()[0])


def serve(path: pathlib.Path, keys: int, queries: int, batch: int) -> dict:
    """Queries answered in batches, each timed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer = ProductKeyMemory(SIZE, keys=keys, heads=4, key_size=256, top=32, values=MappedValues(path)).eval()
    start, before, times, rows = memory("VmRSS"), read_from_disk(), [], 0
    with torch.no_grad():
        for _ in range(queries // batch):
            x = torch.randn(batch, SIZE)
            begin = time.perf_counter()
            layer(x)
            times.append(time.perf_counter() - begin)
            rows += batch * 4 * 32
        weight, index = layer.look_up(torch.randn(8, SIZE))
        found = layer.values(index.flatten(-2), weight.flatten(-2))[:, 0]
        expected = (weight * index).flatten(-2).sum(-1)
    assert torch.allclose(found, expected, rtol=1e-4), "a row is not the one that was written"
    return {
        "queries": queries, "batch": batch, "rows_asked_for": rows,
        "bytes_read_from_disk": read_from_disk() - before,
        "median_milliseconds_a_batch": 1e3 * statistics.median(times),
        "slowest_milliseconds_a_batch": 1e3 * max(times),
        "queries_a_second": queries / sum(times),
        "resident_before_bytes": start, "highest_resident_bytes": memory("VmHWM"),
    }  # fmt: skip


def learn(path: pathlib.Path, keys: int, steps: int, batch: int) -> dict:
    """Steps that move the rows they asked for."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    layer = ProductKeyMemory(SIZE, keys=keys, heads=4, key_size=256, top=32, values=MappedValues(path))
    times, moved = [], 0
    for _ in range(steps):
        begin = time.perf_counter()
        layer(torch.randn(batch, SIZE)).square().mean().backward()
        moved += layer.values.update(1e-3)
        layer.zero_grad()
        times.append(time.perf_counter() - begin)
    layer.values.flush()
    return {
        "steps": steps, "batch": batch, "rows_moved": moved,
        "median_milliseconds_a_step": 1e3 * statistics.median(times),
        "highest_resident_bytes": memory("VmHWM"),
    }  # fmt: skip


def in_a_process(*words: object) -> dict:
    """What a command of this script prints, from a process that has done nothing else."""
    done = subprocess.run([sys.executable, __file__, *map(str, words)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=16)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/tmp"))
    parser.add_argument("--queries", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--only", nargs=3, metavar=("serve|learn", "PATH", "KEYS"), help="what its processes do")
    options = parser.parse_args()
    if options.only:
        what, path, keys = options.only
        do = {"serve": serve, "learn": learn}[what]
        print(json.dumps(do(pathlib.Path(path), int(keys), options.queries, options.batch)))
        return
    room = shutil.disk_usage(options.folder).free / GIGABYTE - SPARE
    gigabytes = min(options.gigabytes, room)
    if gigabytes < options.gigabytes:
        print(f"there is room for {gigabytes:.1f} of the {options.gigabytes} that were asked for")
    keys = int((gigabytes * GIGABYTE / (4 * SIZE)) ** 0.5)
    path = options.folder / f"product_keys_{os.getpid()}.safetensors"
    try:
        seconds = written(keys, path)
        forget(path)
        on_disk = path.stat().st_blocks * 512
        row: dict = {
            "keys": keys,
            "rows": keys**2,
            "size": SIZE,
            "bytes": path.stat().st_size,
            "bytes_on_disk": on_disk,
        }
        row["seconds_to_write"] = seconds
        given = ("--queries", options.queries, "--batch", options.batch)
        row["cold"] = in_a_process("--only", "serve", path, keys, *given)
        forget(path)
        row["learning"] = in_a_process("--only", "learn", path, keys, "--queries", 20, "--batch", 64)
    finally:
        path.unlink(missing_ok=True)
    print(json.dumps(row, indent=2))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "product_keys.json").write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""All benchmarks, one after the other, each in a process of its own, into ``book/results/benchmarks.json``.

    python benchmarks                  all of them, some minutes
    python benchmarks rings sweep      these alone; nothing is written

One that fails or misses an aim does not stop the others; it is named in the file, and the exit status is 1.
"""

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from table import Ratio, collect

from slowmanifold.press.execute import commit, limits, processor
from slowmanifold.press.files import write_text

HERE = Path(__file__).parent
RECORD = HERE.parent / "book" / "results" / "benchmarks.json"
BENCHMARKS = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("__main__", "table"))
PACKAGES = ("numpy", "scipy", "torch", "joblib")


def apart(benchmark: str) -> tuple[list[Ratio], str]:
    """Rows and fault of a benchmark, run in a process of its own that sees no other's threads, types and memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(collect, benchmark).result()
        except BrokenProcessPool:
            return [], "its process died"


def main(names: list[str]) -> int:
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        print(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    os.environ.update(limits(1, 1))
    start, rows, failed = time.perf_counter(), [], {}
    for name in names or BENCHMARKS:
        print(f"== {name}", flush=True)
        found, fault = apart(name)
        rows += [{"benchmark": name} | asdict(row) for row in found]
        if missed := [row.what for row in found if row.missed]:
            fault = fault or f"missed its aim: {'; '.join(missed)}"
        if fault:
            failed[name] = fault
    if not names:
        record = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "commit": commit(HERE.parent),
            "processor": processor(),
            "versions": {"Python": ".".join(map(str, sys.version_info[:3]))}
            | {name: version(name) for name in PACKAGES},
            "seconds": round(time.perf_counter() - start),
            "failed": failed,
            "rows": rows,
        }
        write_text(RECORD, json.dumps(record, indent=1) + "\n")
    for name, fault in failed.items():
        print(f"{name}: {fault}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

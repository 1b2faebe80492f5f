"""The gate holds on other machines: other kernels of OpenBLAS, and two threads for linear algebra in place of one.

Slow, as each runs the whole book: ``make kernels``.
"""

import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest

ROOT = Path(__file__).parents[2]
# The command line, but that its kernels have the given number of threads.
THREADS = """\
import sys
from slowmanifold.press import cli, execute, gate
threads, single = sys.argv.pop(1), execute.limits

def limits(jobs, chapters):
    return {name: threads if name.endswith("_NUM_THREADS") else it for name, it in single(jobs, chapters).items()}

execute.limits = gate.limits = limits
cli.main()
"""


def command(folder: Path, kernel: str, threads: int, *arguments: str) -> subprocess.CompletedProcess:
    """Run the command line in ``folder`` on a kernel of OpenBLAS with some threads."""
    return subprocess.run(
        [sys.executable, "-c", THREADS, str(threads), *arguments],
        cwd=folder,
        env={**os.environ, "OPENBLAS_CORETYPE": kernel},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("kernel", "threads"), [("Prescott", 1), ("Sandybridge", 2)])
def test_the_kernel_and_the_threads_reach_the_chapters(book, kernel, threads):
    if "openblas" not in blas()["internal_api"]:
        pytest.skip(f"NumPy computes with {blas()['internal_api']}, not OpenBLAS")
    look = "from threadpoolctl import threadpool_info\nimport numpy\n"
    look += "print([(it['architecture'], it['num_threads']) for it in threadpool_info()][0])"
    # OpenBLAS has its own names for the kernels, and not all that one may ask for.
    env = {**os.environ, "OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": str(threads)}
    expected = subprocess.run([sys.executable, "-c", look], env=env, capture_output=True, text=True, check=True).stdout
    book.chapter("one", look)
    done = command(book.root, kernel, threads, "run", "one", "-o", "mine")
    assert expected.strip() in (book.root / "mine" / "one.ipynb").read_text(), done.stderr


def blas() -> dict:
    """The linear algebra library of NumPy."""
    import numpy  # noqa: F401  (loads it)
    from threadpoolctl import threadpool_info

    return next(it for it in threadpool_info() if it["user_api"] == "blas")


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", ["Haswell", "Sandybridge", "Prescott"])
def test_the_gate_is_open(kernel, threads):
    jobs = max(1, joblib.cpu_count() // threads)  # more threads than cores wait for each other most of the time
    done = command(ROOT, kernel, threads, "check", "--jobs", str(jobs))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the gate is open")

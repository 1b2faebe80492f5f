"""Forked kernels are like others, but that their libraries are loaded; and none outlives its build."""

import signal
import sys

import pytest

from slowmanifold.press.forks import WORTHWHILE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")

# What a kernel finds around it.
LOOK = """\
import sys
loaded = "torch" in sys.modules
import matplotlib, numpy, torch
print(loaded, os.getppid())
print(os.getcwd(), os.environ["OMP_NUM_THREADS"], os.environ["LOKY_MAX_CPU_COUNT"], torch.get_num_threads())
print(__name__, sys.path[-1], matplotlib.get_backend(), sys.stdin.read(), numpy.linalg.svd([[3.0]])[1][0])"""
SWEEP = """\
from joblib import Parallel, delayed
def double(x):
    return 2 * x
print(Parallel(2)(delayed(double)(x) for x in (1, 2)))"""
WAIT = "import time\nopen(os.environ['RUNS'] + '.waits', 'w').close()\ntime.sleep(60)"


def outputs(book, name):
    """What each line of a chapter's last cell says."""
    return book.notebook("executed", name).cells[-2].outputs[0].text.splitlines()


def fill(book, *others):
    """Chapters enough, ``others`` last."""
    for number in range(WORTHWHILE - len(others)):
        book.chapter(f"c{number}", "print(os.getpid())")
    for name, code in others:
        book.chapter(name, code)


def test_a_forked_kernel_finds_what_any_other_finds_and_its_libraries_loaded(book):
    book.chapter("alone", LOOK)
    assert not book.build(jobs=1).failures
    loaded, *expected = outputs(book, "alone")
    assert loaded.startswith("False ")
    fill(book, ("two", LOOK), ("sweep", SWEEP), ("one", LOOK))
    book.edit("book/alone.md", "loaded =", "loaded  =")
    assert not book.build(jobs=1).failures
    assert outputs(book, "sweep") == ["[2, 4]"]
    servers = set()
    for name in ("alone", "one", "two"):
        first, *rest = outputs(book, name)
        loaded, server = first.split()
        assert loaded == "True"
        assert rest == expected
        servers.add(server)
    assert len(servers) == 1
    assert not book.processes


def test_a_forked_kernel_that_dies_is_told_and_the_others_go_on(book):
    fill(book, ("dies", "import signal\nos.kill(os.getpid(), signal.SIGKILL)"), ("last", "print('last')"))
    failures = book.build(jobs=1).failures
    assert {name: failure.reason for name, failure in failures.items()} == {"dies": "the kernel died"}
    assert outputs(book, "last") == ["last"]
    assert not book.processes


def test_without_their_server_chapters_fail_and_say_so(book):
    fill(
        book, ("kills", "import signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(20)"), ("z", "1")
    )
    failures = book.build(jobs=1).failures
    assert failures["kills"].reason == "the kernel died"
    assert failures["z"].reason == "RuntimeError: the process that kernels are forked from has ended"
    assert not book.processes


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_forked_kernel_outlives_its_build(book, until, end):
    fill(book, ("waits", WAIT), ("waits-too", WAIT))
    build = book.start("build")
    until(lambda: book.runs["waits"])
    build.send_signal(end)
    build.communicate(timeout=20)
    assert build.returncode == (130 if end == signal.SIGINT else -signal.SIGKILL)
    until(lambda: not book.processes, 10)
    assert book.notebook("executed", "c0").cells

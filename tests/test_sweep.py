"""Sweeps: the table, its independence of workers and order, what is kept and when it is computed again, and deaths."""

import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import numpy as np
import pytest
import torch

from slowmanifold import sources, sweep
from slowmanifold.dynamics.fixed_points import relu_fixed_points
from slowmanifold.networks.line import bounded_line_attractor
from slowmanifold.networks.ring import PlanarRing

ROOT = Path(__file__).parents[1]
LOCK = threading.Lock()


def walk(steps, scale, generator):
    x = scale * torch.from_numpy(generator.standard_normal(steps))
    return {"mean": x.mean(), "first": x[:2], "threads": torch.get_num_threads(), "third": torch.tensor(1.0) / 3}


def noted(log, **parameters):
    """A file in ``log`` for each call that began, named by its parameters."""
    (Path(log) / f"{parameters} {uuid4()}").touch()


def calls(log):
    """What was called how often."""
    names = [path.name.rsplit(" ", 1)[0] for path in log.iterdir()]
    return {name: names.count(name) for name in names}


def square(log, x):
    noted(log, x=x)
    return {"y": x * x, "pid": os.getpid()}


def same(one, other):
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "kept"


@pytest.fixture(scope="module")
def scheduler():
    """The address of a real cluster of two worker processes, whose scheduler gives a call up at its first death."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    options = {"host": "127.0.0.1", "dashboard_address": ":0", "silence_logs": logging.CRITICAL}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster,
    ):
        yield cluster.scheduler_address


# The table


def test_the_table_is_what_nested_loops_give(kept):
    grid = {"steps": [5, 7], "scale": np.array([1.0, 2.0, 3.0])}
    table = sweep.sweep(walk, grid, 4, entropy=3, folder=kept, n_jobs=1)
    assert list(table) == ["steps", "scale", "seed", "mean", "first", "threads", "third"]
    assert table["first"].shape == (24, 2)
    assert (table["steps"].dtype, table["scale"].dtype) == (np.int64, np.float64)
    children = np.random.SeedSequence(3).spawn(4)
    rows = [(steps, scale, k) for steps in grid["steps"] for scale in grid["scale"] for k in range(4)]
    for row, (steps, scale, k) in enumerate(rows):
        expected = walk(steps, scale, np.random.default_rng(children[k]))
        assert (table["steps"][row], table["scale"][row], table["seed"][row]) == (steps, scale, k)
        assert table["mean"][row] == expected["mean"]
        np.testing.assert_array_equal(table["first"][row], expected["first"])


def test_results_depend_neither_on_the_workers_nor_on_the_order(tmp_path, scheduler):
    grid = {"steps": [50, 70], "scale": [1.0, 2.0]}
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    try:
        alone = sweep.sweep(walk, grid, 3, folder=tmp_path / "1", n_jobs=1)
        assert torch.get_num_threads() == 2
        assert same(alone, sweep.sweep(walk, grid, 3, folder=tmp_path / "2", n_jobs=2))
        assert same(alone, sweep.sweep(walk, grid, 3, folder=tmp_path / "3", scheduler=scheduler))
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
    assert (alone["threads"] == 1).all()
    assert (alone["third"] == 1 / 3).all()
    in_float32 = sweep.sweep(walk, grid, 3, folder=tmp_path / "1", n_jobs=2)
    assert (in_float32["third"] == np.float32(1 / 3)).all()
    turned = {"scale": [2.0, 1.0], "steps": [70, 50]}
    backwards = sweep.sweep(walk, turned, 3, folder=tmp_path / "4", n_jobs=2)
    means = alone["mean"].reshape(2, 2, 3)
    np.testing.assert_array_equal(backwards["mean"].reshape(2, 2, 3), means.transpose(1, 0, 2)[::-1, ::-1])


def test_all_cores_are_no_more_than_the_environment_allows(log, kept, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    table = sweep.sweep(square, {"log": [str(log)], "x": [1, 2]}, 1, folder=kept)
    assert set(table["pid"]) == {os.getpid()}


def test_a_call_cannot_change_what_another_gets(kept):
    def greedy(items, generator):
        items.append(generator.integers(9))
        return {"length": len(items)}

    items = []
    table = sweep.sweep(greedy, {"items": [items]}, 5, folder=kept, n_jobs=1)
    assert table["length"].tolist() == [1] * 5
    assert items == []


def test_values_of_any_kind_are_columns(kept):
    def describe(network, name, flag, shift):
        return {"size": network().W.shape[-1], "text": f"{name} {flag} {shift}"}

    grid = {"network": [bounded_line_attractor], "name": ["one", "other"], "flag": [True, False], "shift": [None, 1.5]}
    table = sweep.sweep(describe, grid, 1, folder=kept, n_jobs=1)
    assert {name: table[name].dtype.kind for name in grid} == {"network": "O", "name": "U", "flag": "b", "shift": "O"}
    assert table["network"][0] is bounded_line_attractor
    assert table["text"][0] == "one True None"


def test_memory_does_not_grow_with_what_a_point_does(kept):
    def heavy(x):
        return {"sum": np.full(250_000, float(x)).sum()}

    tracemalloc.start()
    try:
        table = sweep.sweep(heavy, {"x": range(60)}, 1, folder=kept, n_jobs=1)
        assert tracemalloc.get_traced_memory()[1] < 5 * 8 * 250_000
    finally:
        tracemalloc.stop()
    assert table["sum"][-1] == 59 * 250_000


# What is kept


def test_only_what_is_missing_is_computed(log, kept):
    def point(log, x, generator):
        noted(log, x=x)
        return {"y": x + generator.random()}

    first = sweep.sweep(point, {"log": [str(log)], "x": [1, 2]}, 2, folder=kept, n_jobs=1)
    turned = sweep.sweep(point, {"x": [1, 2], "log": [str(log)]}, 2, folder=kept, n_jobs=1)
    assert list(turned) == ["x", "log", "seed", "y"]
    assert same(first, {name: turned[name] for name in first})
    assert sum(calls(log).values()) == 4
    wider = sweep.sweep(point, {"log": [str(log)], "x": [2, 3, 1, 3]}, 2, folder=kept, n_jobs=1)
    more = sweep.sweep(point, {"log": [str(log)], "x": [1, 2]}, 3, folder=kept, n_jobs=1)
    assert calls(log) == {"{'x': 1}": 3, "{'x': 2}": 3, "{'x': 3}": 2}
    np.testing.assert_array_equal(wider["y"][[4, 5, 0, 1]], first["y"])
    np.testing.assert_array_equal(more["y"][[0, 1, 3, 4]], first["y"])
    sweep.sweep(point, {"log": [str(log)], "x": [1, 2]}, 2, entropy=1, folder=kept, n_jobs=1)
    assert sum(calls(log).values()) == 12


def test_a_file_that_was_cut_off_is_computed_again(log, kept):
    grid = {"log": [str(log)], "x": [3]}
    table = sweep.sweep(square, grid, 1, folder=kept, n_jobs=1)
    (file,) = kept.glob("square-*/*")
    whole = file.read_bytes()
    for cut in (0, 1, len(whole) // 2):
        file.write_bytes(whole[:cut])
        assert same(table, sweep.sweep(square, grid, 1, folder=kept, n_jobs=1))
        assert file.read_bytes() == whole
    assert calls(log) == {"{'x': 3}": 4}


def test_a_result_is_kept_whole_or_not_at_all(tmp_path, monkeypatch):
    def interrupted(row, file, protocol):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(pickle, "dump", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep.write(tmp_path / "point", {"y": np.ones(3)})
    assert not (tmp_path / "point").exists()


SCRIPT = """
import os, pathlib, time, uuid
from slowmanifold.sweep import sweep
def point(x):
    pathlib.Path(os.environ["RUN"], f"{x} {uuid.uuid4()}").touch()
    time.sleep(0.05)
    return {"small": x < 20}
print(sweep(point, {"x": range(1, 31)}, 1, folder="kept", n_jobs=1)["x"].tolist())
"""


def test_a_sweep_whose_process_is_killed_goes_on_where_it_stopped(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)

    def start(run):
        (tmp_path / run).mkdir()
        options = {"cwd": tmp_path, "env": os.environ | {"RUN": str(tmp_path / run)}, "stdout": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "script.py"], **options)

    def finished():
        return len(list((tmp_path / "kept").glob("*/" + "[0-9a-f]" * 32)))

    killed = start("first")
    while killed.poll() is None and finished() < 8:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    before = finished()
    assert 8 <= before < 30
    output, _ = start("second").communicate()
    assert output.decode() == f"{list(range(1, 31))}\n"
    assert len(list((tmp_path / "second").iterdir())) == 30 - before


def test_results_are_kept_in_the_book_or_in_the_users_cache(tmp_path, monkeypatch):
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "book").mkdir()
    monkeypatch.chdir(tmp_path / "book")
    assert sweep.default_folder() == tmp_path / "_build" / "sweeps"
    (tmp_path / "_toc.yml").unlink()
    assert sweep.default_folder() == sweep.user_cache_path("slowmanifold") / "sweeps"


# When it is computed again


def from_text(text):
    """The function f of a notebook that reads ``text``."""
    module = ModuleType("own")
    exec(text, module.__dict__)
    return module.f


def key(value):
    return sources.fingerprint(value, "it")[0]


TEXT = """
import functools
import numpy as np
import torch
FACTOR = np.array([2.0, 3.0])
ANGLE = torch.tensor([1.0, 0.0])
class Model:
    gain = 1.0
    def out(self, x):
        return self.gain * x
    @property
    def twice(self):
        return 2 * self.gain
def offset():
    return 0.0
@functools.cache
def third(x):
    return x / 3
def maker(power):
    def inner(x):
        return [x**power + offset() for _ in range(2)][0]
    return inner
inner = maker(1)
TABLE = {"third": third, "half": functools.partial(lambda a, x: a * x, 0.5)}
def f(x, scale=2.0):
    y = scale * FACTOR.sum() * Model().out(inner(x)) * Model().twice * TABLE["third"](x) * ANGLE[0]
    return {"y": f(x, 1.0) if x in {"a", "b", "c"} else y}
"""


def test_an_unchanged_function_has_the_same_key_wherever_it_stands():
    moved = TEXT.replace("def f(x", "# a remark\n\n\ndef f(x").replace("    return 0.0", "    return  0.0  # nothing")
    assert key(from_text(TEXT)) == key(from_text(TEXT)) == key(from_text(moved))


def test_another_process_gives_the_same_key(tmp_path):
    (tmp_path / "own.py").write_text(TEXT)
    program = "from own import f; from slowmanifold.sources import fingerprint; print(fingerprint(f, 'it')[0])"
    for seed in ("2", "4"):
        options = {"cwd": tmp_path, "env": os.environ | {"PYTHONHASHSEED": seed}, "capture_output": True, "text": True}
        assert subprocess.run([sys.executable, "-c", program], **options).stdout.strip() == key(from_text(TEXT))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("y = scale *", "y = -scale *"),
        ("scale=2.0", "scale=2.5"),
        ("[2.0, 3.0]", "[2.0, 3.5]"),
        ("[1.0, 0.0]", "[1.0, 0.5]"),
        ("gain = 1.0", "gain = 1.5"),
        ("self.gain * x", "self.gain + x"),
        ("2 * self.gain", "3 * self.gain"),
        ("return 0.0", "return 0.5"),
        ("x / 3", "x / 4"),
        ("a * x, 0.5", "a * x, 0.6"),
        ("a * x, 0.5", "a + x, 0.5"),
        ("maker(1)", "maker(2)"),
        ("x**power", "x*power"),
    ],
)
def test_a_function_counts_with_all_that_it_uses(old, new):
    assert old in TEXT
    assert key(from_text(TEXT)) != key(from_text(TEXT.replace(old, new)))


def test_a_changed_function_is_computed_again(kept):
    for number in (1, 2):
        function = from_text(f"def f(x):\n    return {{'y': {number} * x}}")
        assert sweep.sweep(function, {"x": [5]}, 1, folder=kept, n_jobs=1)["y"] == 5 * number


def test_a_changed_module_of_the_package_is_computed_again(log, kept, monkeypatch):
    def count(log, network):
        from slowmanifold.learning import tasks

        noted(log, x=0)
        return {"points": len(relu_fixed_points(network.W, network.b).points), "task": tasks.__name__}

    def runs(network):
        sweep.sweep(count, {"log": [str(log)], "network": [network]}, 1, folder=kept, n_jobs=1)
        return sum(calls(log).values())

    used = sorted(set(sources.fingerprint(count, "it")[1]) - set(sources.VERSIONS))
    assert {"slowmanifold.dynamics.fixed_points", "slowmanifold.learning.tasks", "slowmanifold"} <= set(used)
    assert "slowmanifold.networks.line" in sources.fingerprint(bounded_line_attractor(), "it")[1]
    assert "slowmanifold.networks.ring" in sources.fingerprint(PlanarRing().velocity, "it")[1]
    unused = sorted(set(sources.AT_IMPORT) - set(used))
    assert "slowmanifold.sweep" in unused
    network = bounded_line_attractor()
    assert runs(network) == 1
    monkeypatch.setitem(sources.AT_IMPORT, "slowmanifold.sweep", "changed")
    assert runs(network) == 1
    for expected, module in enumerate(used, 2):
        monkeypatch.setitem(sources.AT_IMPORT, module, "changed")
        assert runs(network) == expected


def test_a_worker_with_other_code_is_refused():
    package = pickle.dumps((b"", {"numpy": "0.1", "slowmanifold.networks.gone": "0", "Python": "3.11"}, torch.float32))
    with pytest.raises(RuntimeError, match=r"a worker has another numpy, slowmanifold\.networks\.gone, Python"):
        sweep.unpacked(package)


# What fails


def test_a_failing_point_is_reported_and_the_others_are_kept(log, kept):
    def fragile(log, x):
        noted(log, x=x)
        if x == 2 and not (Path(log).parent / "mended").exists():
            raise ArithmeticError("no two")
        return {"y": x * x}

    grid = {"log": [str(log)], "x": [1, 2, 3]}
    with pytest.raises(sweep.PointsFailed) as caught:
        sweep.sweep(fragile, grid, 1, folder=kept, n_jobs=2)
    assert "1 of 3 points failed" in str(caught.value)
    assert re.search(r"fragile\(log='.*', x=2\), seed 0: ArithmeticError: no two", str(caught.value))
    (failure,) = caught.value.failures
    assert failure.point.arguments == {"log": str(log), "x": 2}
    assert 'raise ArithmeticError("no two")' in failure.error
    assert caught.value.table["x"].tolist() == [1, 3]
    assert caught.value.table["y"].tolist() == [1, 9]
    (log.parent / "mended").touch()
    assert sweep.sweep(fragile, grid, 1, folder=kept, n_jobs=2)["y"].tolist() == [1, 4, 9]
    assert calls(log) == {"{'x': 1}": 1, "{'x': 2}": 2, "{'x': 3}": 1}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (3.0, "allowed is a dict of named results"),
        ({}, "allowed is a dict of named results"),
        ({1: 2.0}, "allowed is a dict of named results"),
        ({"x": 1.0}, "'x', which is the name of another column"),
        ({"seed": 1.0}, "'seed', which is the name of another column"),
        ({"y": object()}, "allowed: numbers, text, arrays"),
        ({"y": torch.ones(1, requires_grad=True)}, "requires grad"),
    ],
)
def test_what_is_no_row_of_a_table_is_a_failure(result, message):
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        sweep.row_of(lambda x: result, {"x": 1})


@pytest.mark.parametrize("results", [[{"y": 1.0}, {"z": 1.0}], [{"y": [1.0]}, {"y": [1.0, 2.0]}]])
def test_results_of_different_shapes_are_no_table(results, kept):
    with pytest.raises(ValueError, match=r"the function returned .* at \(x=1\), seed 0, but .* at \(x=0\), seed 0"):
        sweep.sweep(lambda x: results[x], {"x": [0, 1]}, 1, folder=kept, n_jobs=1)


def mortal(log, x):
    noted(log, x=x)
    time.sleep(0.1)
    if x == 4 or (x == 1 and calls(Path(log))["{'x': 1}"] == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"y": x * x}


@pytest.mark.parametrize("where", ["here", "on a cluster"])
def test_a_point_whose_worker_is_killed_is_run_again(where, scheduler, log, kept):
    place = {"n_jobs": 2} if where == "here" else {"scheduler": scheduler}
    with pytest.raises(sweep.PointsFailed, match=r"mortal\(log='.*', x=4\), seed 0: its worker died twice") as caught:
        sweep.sweep(mortal, {"log": [str(log)], "x": range(7)}, 1, folder=kept, **place)
    assert caught.value.table["x"].tolist() == [0, 1, 2, 3, 5, 6]
    assert caught.value.table["y"].tolist() == [0, 1, 4, 9, 25, 36]
    assert calls(log)["{'x': 1}"] >= 2


@pytest.mark.parametrize(
    ("function", "grid", "seeds", "message"),
    [
        (3, {"x": [1]}, 1, "function is 3; allowed is something to call"),
        (square, {"log": ["a"], "x": []}, 1, r"grid\['x'\] is empty"),
        (square, {"log": ["a"], "x": 1.0}, 1, r"grid\['x'\] is 1\.0; allowed is a list"),
        (square, {"log": "folder", "x": [1]}, 1, r"grid\['log'\] is 'folder'; allowed is a list"),
        (square, {"log": ["a"], "y": [1]}, 1, r"grid has .*; the function takes \(log, x\): .*'x'"),
        (square, {"log": ["a"], "x": [1], "y": [1]}, 1, r"grid has .*; the function takes \(log, x\): .*'y'"),
        (walk, {"steps": [1], "scale": [1], "generator": [1]}, 1, "grid has 'generator'"),
        (lambda seed: {"y": seed}, {"seed": [1]}, 1, "grid has 'seed'"),
        (walk, {"steps": [1], "scale": [1]}, 0, "seeds is 0; allowed: 1, 2, 3"),
        (walk, {"steps": [1], "scale": [1]}, 1.5, "seeds is 1.5; allowed: 1, 2, 3"),
        (square, {"log": ["a"], "x": [1]}, 2, "seeds is 2; allowed is 1, as the function takes no generator"),
        (lambda x: LOCK, {"x": [1]}, 1, r"function: .*lock.* has no lasting description"),
        (square, {"log": ["a"], "x": [[LOCK]]}, 1, r"grid\['x'\]: .*lock.* has no lasting description"),
    ],
)
def test_wrong_arguments_are_named(function, grid, seeds, message, kept, unchecked):
    with pytest.raises(ValueError, match=message):
        sweep.sweep(function, grid, seeds, folder=kept, n_jobs=1)
    assert not kept.exists()


# A terminal, a notebook, a cluster, and the page


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_shown_on_a_terminal_only(terminal, log, kept, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    sweep.sweep(square, {"log": [str(log)], "x": [1, 2]}, 1, folder=kept, n_jobs=1)
    output = capsys.readouterr()
    assert output.out == ""
    assert ("100%" in output.err) is terminal
    assert terminal or output.err == ""


def test_a_function_of_a_notebook_runs_in_workers_and_says_nothing(kept):
    import nbclient
    import nbformat

    cells = [
        "from slowmanifold.sweep import sweep\nimport os\nOFFSET = 1",
        "class Model:\n    def add(self, x):\n        return x + OFFSET",
        "def point(x):\n    return {'y': Model().add(x), 'worker': os.getpid() != PARENT}",
        f"PARENT = os.getpid()\ntable = sweep(point, {{'x': [1, 2, 3]}}, 1, folder={str(kept)!r}, n_jobs=2)",
        "table['y'].tolist(), table['worker'].all().item()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    *silent, last = notebook.cells
    assert [cell.outputs for cell in silent] == [[]] * 4
    assert [output.data["text/plain"] for output in last.outputs] == ["([2, 3, 4], True)"]


def test_the_environment_names_a_cluster_and_a_cluster_has_its_own_processes(scheduler, kept, monkeypatch):
    def pid(x):
        time.sleep(0.05)
        return {"pid": os.getpid()}

    monkeypatch.setenv(sweep.SCHEDULER, scheduler)
    processes = set(sweep.sweep(pid, {"x": range(20)}, 1, folder=kept)["pid"].tolist())
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_scheduler_that_does_not_answer_is_named(log, kept):
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": 0.5}), pytest.raises(OSError, match=r"127\.0\.0\.1:9"):
        sweep.sweep(square, {"log": [str(log)], "x": [1]}, 1, folder=kept, scheduler="tcp://127.0.0.1:9")


def test_the_example_of_the_page_runs(tmp_path, monkeypatch, capsys):
    page = (ROOT / "book" / "sweeps.md").read_text()
    example, shown = re.findall(r"```(?:python|text)\n(.*?)```", page, re.DOTALL)[:2]
    (tmp_path / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    exec(compile(example, "sweeps.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == shown

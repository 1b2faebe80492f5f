"""What a result depends on: a function with all that it uses, and nothing of its layout."""

import os
import subprocess
import sys
from types import ModuleType

import pytest

from slowmanifold import sources
from slowmanifold.networks.line import bounded_line_attractor
from slowmanifold.networks.ring import PlanarRing


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
    options = {"cwd": tmp_path, "env": os.environ | {"PYTHONHASHSEED": "2"}, "capture_output": True, "text": True}
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


def test_the_modules_behind_a_value_are_those_that_it_imports():
    def imports_within():
        from slowmanifold.learning import tasks

        return tasks

    def modules(value):
        return {name for name in sources.fingerprint(value, "it")[1] if name.startswith("slowmanifold")}

    line = {"slowmanifold", "slowmanifold.networks"}
    line |= {f"slowmanifold.networks.{name}" for name in ("line", "euler", "matvec")}
    assert modules(bounded_line_attractor) == modules([bounded_line_attractor()]) == line
    assert "slowmanifold.networks.ring" in modules(PlanarRing().velocity)
    assert "slowmanifold.learning.tasks" in modules(imports_within)
    assert not modules(from_text(TEXT))


def test_data_that_contains_itself_is_named():
    data = []
    data.append(data)
    with pytest.raises(ValueError, match="grid is data that contains itself"):
        sources.fingerprint(data, "grid")

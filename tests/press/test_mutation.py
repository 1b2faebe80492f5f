"""The claims of a chapter stand on the package: one token that is wrong there turns one of them red.

Slow, as each mutation executes its chapter up to the first claim that is contradicted: ``make mutants``.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from nbformat import read


class Mutation(NamedTuple):
    """``old`` becomes ``new`` in a file of the package, and ``chapter`` is to notice."""

    fault: str
    file: str
    old: str
    new: str
    chapter: str


MUTATIONS = [
    Mutation("sign of the leak", "networks/line.py", "return -x + phi(", "return x + phi(", "fenichel"),
    Mutation(
        "excitation for inhibition",
        "networks/line.py",
        "W=_tensor([[0, -1], [-1, 0]])",
        "W=_tensor([[0, 1], [1, 0]])",
        "fenichel",
    ),
    Mutation(
        "sign of the attraction", "networks/ring.py", "- x.unsqueeze(-1) * e", "+ x.unsqueeze(-1) * e", "fenichel"
    ),
    Mutation("missing dt", "networks/euler.py", "x + dt * self.velocity", "x + self.velocity", "fenichel"),
    Mutation("swapped J_E and J_I", "networks/ring.py", "(J_I + J_E * torch.cos", "(J_E + J_I * torch.cos", "rings"),
    Mutation("n off by one", "networks/ring.py", "torch.arange(2, N - 1, ", "torch.arange(3, N, ", "rings"),
    Mutation("gate not applied", "networks/oscillator.py", "(1 - z) * (h - x)", "(h - x)", "limit_cycles"),
    Mutation("transposed Jacobian", "networks/reservoir.py", "@ self.W.mT - v", "@ self.W - v", "reservoir"),
    Mutation("W for its transpose", "networks/oscillator.py", "matvec(self.W.mT,", "matvec(self.W,", "limit_cycles"),
    Mutation("g for g squared", "theory/mean_field.py", "beta_1 = gain**2 *", "beta_1 = gain *", "reservoir"),
    Mutation("missing threshold", "networks/reservoir.py", "torch.relu(x - threshold)", "torch.relu(x)", "reservoir"),
    Mutation(
        "product for quotient", "dynamics/lyapunov.py", "(volume.abs() / size)", "(volume.abs() * size)", "limit_cycles"
    ),
    Mutation("sign of the feedback", "dynamics/response.py", "self.A + torch", "self.A - torch", "reservoir"),
    Mutation("wrong exponent", "theory/mean_field.py", "(gain / sigma) ** 2 *", "(gain / sigma) ** 1 *", "reservoir"),
    Mutation(
        "sign of the target",
        "learning/tasks.py",
        "inputs[:, 1] - inputs[:, 0]",
        "inputs[:, 0] - inputs[:, 1]",
        "clicks",
    ),
    Mutation(
        "missing factor 2",
        "learning/landscape.py",
        "return 2 * torch.linalg.eigvals",
        "return torch.linalg.eigvals",
        "landscape",
    ),
    Mutation(
        "half the gradient",
        "learning/maintenance.py",
        "gradient * (2 / (trials",
        "gradient * (1 / (trials",
        "maintenance",
    ),
]


PACKAGE = Path(__file__).parents[2] / "src" / "slowmanifold"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.fault for mutation in MUTATIONS])
def test_a_mutation_changes_one_place(mutation):
    """So that one which has lost its place is noticed at once, and not only by ``make mutants``."""
    assert (PACKAGE / mutation.file).read_text().count(mutation.old) == 1


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.fault for mutation in MUTATIONS])
def test_a_fault_in_the_package_turns_a_claim_red(copy, mutation):
    copy.edit(f"src/slowmanifold/{mutation.file}", mutation.old, mutation.new)
    done = copy.press("build", mutation.chapter)
    assert done.returncode == 1
    red = re.search(r"^ *ClaimContradicted: (\S+) is recorded as '(\w+)'", done.stderr, re.MULTILINE)
    assert red, done.stderr
    name, status = red.groups()
    print(f"{mutation.fault}: {name}")
    # It is the fault that did it: without it the same claim has the status of its record.
    assert copy.project.records[name].status == status
    reference = read(copy.ROOT / "tests" / "reference" / f"{mutation.chapter}.ipynb", as_version=4)
    told = [output.data["text/plain"] for cell in reference.cells for output in cell.outputs if "data" in output]
    assert f"{name}: {status}: {copy.project.records[name].target}" in told

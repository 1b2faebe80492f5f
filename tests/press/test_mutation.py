"""The claims of a chapter stand on the package: a sign that is flipped there turns one of them red."""

import re

import pytest
from nbformat import read


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("networks/line.py", "return -x + phi(", "return x + phi("),
        ("networks/line.py", "W=_tensor([[0, -1], [-1, 0]])", "W=_tensor([[0, 1], [1, 0]])"),
        ("networks/ring.py", "- x.unsqueeze(-1) * e", "+ x.unsqueeze(-1) * e"),
    ],
    ids=["leak", "inhibition", "attraction"],
)
def test_a_flipped_sign_turns_a_claim_red(copy, file, old, new):
    copy.edit(f"src/slowmanifold/{file}", old, new)
    done = copy.press("build", "fenichel")
    assert done.returncode == 1
    name, status = re.search(r"^ *ClaimContradicted: (\S+) is recorded as '(\w+)'", done.stderr, re.MULTILINE).groups()
    # It is the sign that did it: without it the same claim has the status of its record.
    assert copy.project.records[name].status == status
    reference = read(copy.ROOT / "tests" / "reference" / "fenichel.ipynb", as_version=4)
    told = [output.data["text/plain"] for cell in reference.cells for output in cell.outputs if "data" in output]
    assert f"{name}: {status}: {copy.project.records[name].target}" in told

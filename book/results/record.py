"""The training runs of the chapter "Long memory" that are too long for its build, recorded as JSON beside this file.

    python book/results/record.py                     all of them, about four hours on one core
    python book/results/record.py search copy_memory  some: search, copy_memory, common_rate, thousand, parts, reset,
                                                      gated_copy, gated_search, random_delay, random_plain, digits
    MNIST=FOLDER python book/results/record.py full_digits

The last one is not among "all": it wants a GPU, and a folder with the four files of MNIST in idx format. Finished runs
are kept (see the package's ``sweep``): a recording that was interrupted goes on where it stopped.
"""

import json
import math
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from slowmanifold.learning.digits import Split, small_digits
from slowmanifold.learning.digits import full_digits as read_digits
from slowmanifold.learning.long_memory import train_digits, train_memory
from slowmanifold.press.execute import commit
from slowmanifold.press.files import write_text
from slowmanifold.sweep import sweep

HERE = Path(__file__).parent
CORES = 1
STARTS = {
    "limit cycle": ("rotation", 1.1),
    "rotation 1": ("rotation", 1.0),
    "rotation 0.95": ("rotation", 0.95),
    "orthogonal 1.1": ("orthogonal", 1.1),
    "orthogonal 1": ("orthogonal", 1.0),
    "orthogonal 0.95": ("orthogonal", 0.95),
    "identity": ("identity", 1.0),
    "Glorot": ("glorot", 1.0),
}
STEPS = {50: 600, 100: 600, 200: 300}
TRAINED = {50: tuple(STARTS), 100: ("limit cycle", "rotation 1", "orthogonal 1.1", "orthogonal 1")}
TRAINED |= {200: ("limit cycle", "rotation 1")}
RATES = [1e-3, 3e-3]  # of learning
SLOW = RATES[0]
SEEDS = 5
MEMORY = {"cell": "tanh", "units": 128, "batch": 64, "every": 25, "enough": 0.99, "weighted": True}
GATED = {**MEMORY, "cell": "GRU", "learning_rate": 3e-3, "input_scale": 0.1}
GATED_STARTS = {
    "limit cycle": {"structure": "slow rotation", "gain": 1.5},  # the authors': all pairs oscillate
    "rotation 1.1": {"structure": "rotation", "gain": 1.1},  # with gates one pair in five does
    "rotation 1": {"structure": "rotation", "gain": 1.0},
    "rotation 0.95": {"structure": "rotation", "gain": 0.95},
    "orthogonal 1.1": {"structure": "orthogonal", "gain": 1.1},
    "identity": {"structure": "identity", "gain": 1.0},
    "default": {"structure": "default", "gain": 1.0},
}
RANDOM = {"delays": (30, 50), "tested": (20, 30, 40, 50, 60, 100, 200), "every": 100}
SEARCH = {"learning_rate": RATES, "input_scale": [0.03, 0.1, 0.45]}
LONGER = ("authors", "gain 1.5", "no weighting")  # of the parts
SHIFTS = (-10, -5, -2, -1, 0, 1, 2, 5, 10)
MNIST = "MNIST"  # the environment variable with the folder of the full digits
EXPONENTS = 24  # of the largest that are written down


def search() -> dict:
    """Learning rate and input scale of each start: the same six settings for all, at a short delay."""
    base = {**MEMORY, "delays": (30, 30), "tested": (30,), "steps": 200}
    return together(
        {"start": start} | run({**base, "structure": structure, "gain": gain}, 2, 1, SEARCH)
        for start, (structure, gain) in STARTS.items()
    )


def chosen(search: str = "search") -> dict[str, dict[str, float]]:
    """The setting of each start with the highest recall, averaged over the learning curve and the seeds."""
    table = json.loads((HERE / f"{search}.json").read_text())["runs"]
    recall = np.array(table["recall"], dtype=float)
    # A network that has solved the task stays there: its last recall stands for the looks that it did not need.
    for row in recall:
        row[np.isnan(row)] = row[~np.isnan(row)][-1]
    settings = {}
    for start in dict.fromkeys(table["start"]):
        scores = {}
        for i in np.flatnonzero(np.array(table["start"]) == start):
            scores.setdefault((table["learning_rate"][i], table["input_scale"][i]), []).append(recall[i].mean())
        best = max(scores, key=lambda setting: np.mean(scores[setting]))
        settings[start] = dict(zip(("learning_rate", "input_scale"), best, strict=True))
    return settings


def copy_memory() -> dict:
    """Copy memory at fixed delays, five seeds: every start at 50, those of gains 1 and 1.1 at 100, rotations at 200.

    At 50 each start has the setting that the search chose for it. At 100 and 200 all have the slower learning rate: the
    faster one is too fast there, which was known for limit cycles before these runs.
    """
    tables = []
    for delay, steps in STEPS.items():
        for start in TRAINED[delay]:
            structure, gain = STARTS[start]
            setting = chosen()[start] | ({} if delay == 50 else {"learning_rate": SLOW})
            fixed = {**MEMORY, **setting, "structure": structure, "gain": gain, "steps": steps}
            tested = tuple(delay + shift for shift in SHIFTS)
            table = run({**fixed, "delays": (delay, delay), "tested": tested}, SEEDS, 2)
            tables.append({"start": start, "delay": delay} | table)
    return together(tables)


def common_rate() -> dict:
    """Limit cycles at a delay of 50, as in copy_memory, at the slower learning rate, which some siblings have."""
    fixed = {**MEMORY, **chosen()["limit cycle"], "learning_rate": SLOW, "structure": "rotation", "gain": 1.1}
    fixed |= {"steps": STEPS[50], "delays": (50, 50), "tested": (50,)}
    return together([{"start": "limit cycle", "delay": 50} | run(fixed, SEEDS, 2)])


def thousand() -> dict:
    """Copy memory at a delay of 1000, the slower learning rate: one network each from limit cycles and two siblings."""
    tables = []
    for start in ("limit cycle", "rotation 1", "orthogonal 1.1"):
        structure, gain = STARTS[start]
        fixed = {**MEMORY, **chosen()[start], "learning_rate": SLOW, "structure": structure, "gain": gain, "steps": 300}
        table = run({**fixed, "delays": (1000, 1000), "tested": (999, 1000, 1001)}, 1, 2)
        tables.append({"start": start, "delay": 1000} | table)
    return together(tables)


def reset() -> dict:
    """Limit cycles at a delay of 50, as in copy_memory, with their phases or amplitudes reset before each cue."""
    base = {**MEMORY, **chosen()["limit cycle"], "structure": "rotation", "gain": 1.1, "steps": STEPS[50]}
    base |= {"delays": (50, 50), "tested": (50,)}
    return together([run(base, SEEDS, 2, {"reset": ["phases", "amplitudes"]})])


def parts() -> dict:
    """What the limit-cycle start owes to input scale, weighting and gain; two seeds at a delay of 50.

    Three learning rates. "authors" is the start of the authors' published code, in a smaller network: gain 1.5, angles
    from pi/21 to pi/3.8, Kaiming's inputs, weighted, a random initial state (our choice of its standard deviation). The
    changes in ``LONGER`` are trained for longer, too, at the two slower rates.
    """
    base = {**MEMORY, "structure": "rotation", "gain": 1.1, "input_scale": 0.1, "initial": 0.0}
    base |= {"delays": (50, 50), "tested": (50,)}
    kaiming = {"input_scale": math.sqrt(0.2)}
    changes = {
        "all": {},
        "no weighting": {"weighted": False},
        "Kaiming input": kaiming,
        "gain 1.5": {"gain": 1.5},
        "authors": {"gain": 1.5, "structure": "slow rotation", **kaiming, "initial": 0.5},
    }
    rates = [3e-4, *RATES]
    tables = [
        {"change": name} | run({**base, **change, "steps": 600}, 2, 3, {"learning_rate": rates})
        for name, change in changes.items()
    ]
    tables += [
        {"change": name} | run({**base, **changes[name], "steps": 4000}, 2, 3, {"learning_rate": rates[:2]})
        for name in LONGER
    ]
    return together(tables)


def gated_copy() -> dict:
    """Copy memory at a delay of 20, a GRU: all starts but rotations of gain 0.95, three seeds; no search."""
    base = {**GATED, "steps": 800, "every": 50, "delays": (20, 20), "tested": tuple(20 + shift for shift in SHIFTS)}
    starts = {name: start for name, start in GATED_STARTS.items() if name != "rotation 0.95"}
    return together({"start": name} | run({**base, **start}, 3, 7) for name, start in starts.items())


def gated_search() -> dict:
    """As ``search``, for GRUs at delays drawn from 5 to 15 for each trial: the same six settings for each start."""
    base = {**MEMORY, "cell": "GRU", "delays": (5, 15), "tested": (5, 10, 15)}
    base |= {"steps": 600, "every": 50, "probe": False}
    return together({"start": name} | run({**base, **start}, 2, 8, SEARCH) for name, start in GATED_STARTS.items())


def random_delay() -> dict:
    """GRUs at delays drawn from 30 to 50 for each trial, asked after up to 200 steps; three seeds of every start.

    With the setting that ``gated_search`` chose for each.
    """
    tables = []
    for name, start in GATED_STARTS.items():
        fixed = {**GATED, **RANDOM, **start, **chosen("gated_search")[name], "steps": 6000}
        tables.append({"start": name} | run(fixed, 3, 4))
    return together(tables)


def random_plain() -> dict:
    """As ``random_delay``, networks without gates: every start, with the input scale that ``search`` chose for it."""
    tables = []
    for name, (structure, gain) in STARTS.items():
        fixed = {**MEMORY, **RANDOM, "structure": structure, "gain": gain, "steps": 3000}
        fixed["input_scale"] = chosen()[name]["input_scale"]
        tables.append({"start": name} | run(fixed, 3, 4, {"learning_rate": RATES}))
    return together(tables)


def digits(split=small_digits, steps: int = 300, every: int = 25) -> dict:
    """Permuted 8 x 8 digits: two settings each, chosen on the validation images, then three seeds and the test."""
    base = {"split": split, "parameters": 18000, "batch": 64, "steps": steps, "every": every, "dt": 0.076}
    rnn = {"learning_rate": RATES}
    own = {"structure": "default", "gain": 1.0, "input_scale": 1.0}
    networks = {
        "limit cycle": ({"cell": "tanh", "structure": "rotation", "gain": 1.1, "input_scale": 0.1}, rnn),
        "orthogonal": ({"cell": "tanh", "structure": "orthogonal", "gain": 1.0, "input_scale": 0.1}, rnn),
        "GRU": ({"cell": "GRU", **own}, {"learning_rate": [3e-3, 1e-2]}),
        "coRNN": ({"cell": "coRNN", **own, "learning_rate": 1e-2}, {"dt": [0.076, 0.24]}),
    }
    tables = []
    for name, (network, settings) in networks.items():
        searched = run({**base, **network, "judge": False}, 1, 5, settings)
        best = int(np.argmax(searched["best"]))
        setting = {key: searched[key][best].item() for key in settings}
        judged = run({**base, **network, **setting, "judge": True}, 3, 6)
        tables += [{"network": name, "stage": "search"} | searched, {"network": name, "stage": "test"} | judged]
    return together(tables)


def full_digits() -> dict:
    """Permuted digits of 28 x 28 by the protocol of ``digits``, for 5000 steps; for a GPU."""
    if MNIST not in os.environ:
        raise SystemExit(f"{MNIST} is not set; give the folder with the four files of MNIST in idx format")
    return digits(split=mnist, steps=5000, every=250)


def mnist(generator: np.random.Generator) -> Split:
    """The images in the folder that the environment names."""
    return read_digits(Path(os.environ[MNIST]), generator)


def run(fixed: dict, seeds: int, entropy: int, grid: dict | None = None) -> dict:
    """A sweep with one value for most parameters."""
    function = train_digits if "judge" in fixed else train_memory
    values = {name: [value] for name, value in fixed.items()} | (grid or {})
    return sweep(function, values, seeds, entropy=entropy, n_jobs=CORES)


def together(tables) -> dict:
    """One table of many; a value that a table has once is repeated, a learning curve that is shorter is filled up."""
    tables = [dict(table) for table in tables]
    columns: dict[str, list] = {}
    for table in tables:
        rows = len(table["seed"])
        for name, column in table.items():
            values = [column] * rows if isinstance(column, str | int) else plain(name, column)
            columns.setdefault(name, []).extend(values)
    for name in ("step", "loss", "recall", "validation"):
        longest = max(map(len, columns.get(name, [])), default=0)
        for curve in columns.get(name, []):
            curve += [None] * (longest - len(curve))
    return columns


def plain(name: str, column: np.ndarray) -> list:
    """A column as JSON has it: five digits, nothing for what is not finite, the largest exponents only."""
    if column.dtype == object:
        return [getattr(value, "__name__", value) for value in column]
    if column.dtype.kind != "f":
        return column.tolist()
    if name == "exponents":
        column = column[..., :EXPONENTS]
    flat = [None if not math.isfinite(value) else float(f"{value:.5g}") for value in column.ravel()]
    array = np.empty(column.shape, dtype=object)
    array.ravel()[:] = flat
    return array.tolist()


def device(name: str) -> str:
    """What a recording runs on: digits on a GPU if there is one, copy memory on the CPU."""
    if "digits" in name and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {platform.machine()}, one thread"


def record(name: str, tree: str) -> None:
    """Run one recording and write it, with all that it takes to make it again, the commit ``tree`` among it."""
    runs = globals()[name]()
    head = {
        "command": f"python book/results/record.py {name}",
        "about": globals()[name].__doc__,
        "commit": tree,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "device": device(name),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "seconds": round(sum(runs["seconds"])),
    }
    write_text(HERE / f"{name}.json", json.dumps(head | {"runs": runs}, indent=None, separators=(",", ":")) + "\n")


ALL = (
    "search",
    "copy_memory",
    "common_rate",
    "thousand",
    "parts",
    "reset",
    "gated_copy",
    "gated_search",
    "random_delay",
    "random_plain",
    "digits",
)


def main(names: list[str]) -> int:
    there = (*ALL, "full_digits")
    if unknown := sorted(set(names) - set(there)):
        print(f"no recording {unknown[0]!r}; there are {', '.join(there)}", file=sys.stderr)
        return 2
    tree = commit(HERE)  # before the first is written, which makes the tree differ from it
    for name in names or ALL:
        record(name, tree)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

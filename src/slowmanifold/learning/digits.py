"""Handwritten digits as pixels and labels: the small ones of scikit-learn, or a folder of the full ones."""

import gzip
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """Grey images, flattened row by row, with the class of each; pixels from 0 to 1."""

    pixels: Float[Tensor, "n pixels"]
    labels: Int[Tensor, " n"]

    def __getitem__(self, index: Tensor | slice) -> "Images":
        return Images(self.pixels[index], self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Split:
    """Images to learn from, to choose settings by, and to be judged on once."""

    training: Images
    validation: Images
    test: Images


def small_digits(generator: np.random.Generator) -> Split:
    """The 1797 digits of 8 x 8 pixels that scikit-learn ships, shuffled and split 60 : 20 : 20.

    Source: Alpaydin and Kaynak (1998), UCI repository; the copy in scikit-learn. Used in: long_memory.
    """
    # Its file alone, a digit a row: to import the library takes two seconds.
    library = Path(find_spec("sklearn").origin).parent
    digits = torch.from_numpy(np.loadtxt(library / "datasets" / "data" / "digits.csv.gz", delimiter=","))
    digits = digits[torch.from_numpy(generator.permutation(len(digits)))]
    images = Images(digits[:, :-1] / 16, digits[:, -1].long())
    part = len(images) // 5
    return Split(images[2 * part :], images[:part], images[part : 2 * part])


def full_digits(folder: Path, generator: np.random.Generator) -> Split:
    """MNIST, or another data set in its format, from a folder with its four idx files, gzipped or not.

    A random sixth of the training images, 10 000 of 60 000, is for validation; the test images stay what they are.
    Raises ``FileNotFoundError`` for a file that is not there, ``ValueError`` for one that is not in idx format.
    Source: LeCun et al. (1998). Used in: long_memory.
    """
    parts = [
        Images(_idx(folder, f"{part}-images").flatten(1).double() / 255, _idx(folder, f"{part}-labels").long())
        for part in ("train", "t10k")
    ]
    order = torch.from_numpy(generator.permutation(len(parts[0])))
    part = len(order) // 6
    return Split(parts[0][order[part:]], parts[0][order[:part]], parts[1])


def _idx(folder: Path, name: str) -> Tensor:
    """The array of bytes in ``NAME-idx?-ubyte`` or ``NAME.idx?-ubyte``, perhaps with .gz."""
    found = sorted(folder.glob(f"{name}*ubyte*"))
    if not found:
        raise FileNotFoundError(f"no {name}-idx?-ubyte, nor one with .gz, in {folder}")
    content = found[0].read_bytes()
    content = gzip.decompress(content) if found[0].suffix == ".gz" else content
    data = np.frombuffer(content, dtype=np.uint8)
    axes = int(data[3]) if len(data) >= 4 else 0
    sizes = np.frombuffer(content, dtype=">u4", count=axes, offset=4) if len(data) >= 4 + 4 * axes else np.zeros(0)
    if tuple(data[:3]) != (0, 0, 8) or len(data) != 4 + 4 * axes + sizes.prod():
        raise ValueError(f"{found[0].name} is no idx array of bytes; allowed: magic number 0 0 8 n, then n sizes, data")
    return torch.from_numpy(data[4 + 4 * axes :].reshape(sizes.astype(int)).copy())

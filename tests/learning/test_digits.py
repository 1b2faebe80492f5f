"""Digits: splits that do not overlap, and files in idx format."""

import gzip
import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from slowmanifold.learning.digits import full_digits, small_digits
from slowmanifold.learning.long_memory import network, share_right, train_digits


def test_the_small_digits_are_shared_out_without_remainder_or_overlap():
    split = small_digits(np.random.default_rng(0))
    parts = [split.training, split.validation, split.test]
    assert [len(part) for part in parts] == [1079, 359, 359]
    together = torch.cat([part.pixels for part in parts])
    everything = small_digits(np.random.default_rng(1))
    others = torch.cat([part.pixels for part in (everything.training, everything.validation, everything.test)])
    assert torch.equal(torch.unique(together, dim=0), torch.unique(others, dim=0))
    assert together.min() == 0
    assert together.max() == 1


def test_the_small_digits_are_those_of_scikit_learn():
    split = small_digits(np.random.default_rng(0))
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    for name, expected in (("pixels", pixels / 16), ("labels", labels)):
        shared = [getattr(part, name) for part in (split.validation, split.test, split.training)]
        assert np.array_equal(torch.cat(shared).numpy(), expected[order]), name


def written(folder, name, array, zipped):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.tobytes()
    (folder / (name + ".gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
def test_files_in_idx_format_are_read_back(tmp_path, zipped):
    rng = np.random.default_rng(0)
    shapes = {"train": 60, "t10k": 20}
    arrays = {part: rng.integers(0, 256, (n, 4, 3), dtype=np.uint8) for part, n in shapes.items()}
    labels = {part: rng.integers(0, 10, n, dtype=np.uint8) for part, n in shapes.items()}
    for part in shapes:
        written(tmp_path, f"{part}-images-idx3-ubyte", arrays[part], zipped)
        written(tmp_path, f"{part}-labels-idx1-ubyte", labels[part], zipped)
    split = full_digits(tmp_path, np.random.default_rng(1))
    assert (len(split.training), len(split.validation), len(split.test)) == (50, 10, 20)
    assert np.array_equal((split.test.pixels * 255).round().numpy(), arrays["t10k"].reshape(20, 12))
    assert np.array_equal(split.test.labels.numpy(), labels["t10k"])


def test_a_folder_without_digits_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images"):
        full_digits(tmp_path, np.random.default_rng(0))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"no digits here")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte"):
        full_digits(tmp_path, np.random.default_rng(0))


def test_rivals_have_as_many_parameters_and_the_same_images():
    found = {}
    for cell in ("tanh", "GRU", "coRNN"):
        found[cell] = train_digits(
            split=small_digits,
            cell=cell,
            structure="default",
            gain=1.0,
            input_scale=1.0,
            dt=0.076,
            learning_rate=1e-3,
            parameters=3000,
            batch=8,
            steps=2,
            every=1,
            judge=cell == "tanh",
            generator=np.random.default_rng(0),
        )
    for cell, result in found.items():
        model = network(cell, 1, 10, result["units"], np.random.default_rng(0), "default")
        assert sum(p.numel() for p in model.parameters()) == result["size"]
        assert result["size"] == pytest.approx(3000, rel=0.05)
        assert np.isnan(result["test"]) == (cell != "tanh")
        assert result["best"] == result["validation"].max()


def test_images_are_judged_alike_in_parts_of_any_size():
    images = small_digits(np.random.default_rng(0)).test
    model, order = network("tanh", 1, 10, 16, np.random.default_rng(0), "default"), torch.arange(64)
    shares = {part: share_right(model, images, order, part) for part in (7, 100, 359, 500)}
    with torch.no_grad():
        answers = model(images.pixels.unsqueeze(-1))[:, -1].argmax(-1)
    right = (answers == images.labels).double().mean().item()
    assert 0 < right < 1
    assert list(shares.values()) == pytest.approx([right] * 4)


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="LSTM"):
        network("LSTM", 1, 10, 8, np.random.default_rng(0), "default")

"""The training loop: seeded, resumable to the last bit, stopped where it should be."""

import copy

import numpy as np
import pytest
import torch

from slowmanifold.learning.recurrent import Recurrent
from slowmanifold.learning.tasks import UNMARKED, Trials, copy_memory
from slowmanifold.learning.training import accuracy, classification_loss, train


def draw(generator):
    return copy_memory(16, 1, generator, symbols=2, length=1)


def recall(model, generator):
    trials = draw(generator)
    with torch.no_grad():
        return {"recall": accuracy(model(trials.inputs), trials.targets, blank=0)}


def fresh():
    seed = torch.Generator().manual_seed(0)
    core = torch.nn.RNN(4, 8)
    for parameter in core.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5, generator=seed)
    return Recurrent(core, 3, seed)


def trained(**changes):
    model = fresh()
    settings = {"steps": 60, "every": 10, "learning_rate": 0.01, "generator": np.random.default_rng(1)}
    history = train(model, draw, **settings | {"evaluate": recall, "device": "cpu"} | changes)
    return model, history


def test_training_solves_what_a_network_without_memory_cannot():
    _, history = trained(steps=120, every=40, learning_rate=0.03)
    assert history["recall"][-1] == 1.0
    assert history["loss"][-1] < 0.5 * np.log(2) / 3


def test_the_steps_are_those_of_torchs_adam():
    model, history = trained(steps=30, evaluate=None)
    other, generator, losses = fresh(), np.random.default_rng(1), []
    optimiser = torch.optim.Adam(other.parameters(), lr=0.01, fused=True)
    for _ in range(30):
        trials = draw(generator)
        loss = classification_loss(other(trials.inputs), trials.targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    assert history["loss"][-1] == pytest.approx(np.mean(losses[-10:]), rel=1e-12)


def test_the_same_generator_gives_the_same_training_and_another_one_another():
    (a, one), (b, two), (_, other) = trained(), trained(), trained(generator=np.random.default_rng(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert all(np.array_equal(one[name], two[name]) for name in ("step", "loss", "recall"))
    assert not np.array_equal(one["loss"], other["loss"])


@pytest.mark.parametrize("killed_at", [3, 20, 37])
def test_a_killed_training_continues_to_the_same_result(tmp_path, killed_at):
    whole, expected = trained()
    draws = iter(range(10**6))

    def interrupted(generator):
        if next(draws) == killed_at:
            raise KeyboardInterrupt
        return draw(generator)

    settings = {"steps": 60, "every": 10, "learning_rate": 0.01, "evaluate": recall, "device": "cpu"}
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), interrupted, **settings, generator=np.random.default_rng(1), checkpoint=path)
    model = fresh()
    history = train(model, draw, **settings, generator=np.random.default_rng(1), checkpoint=path)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), model.parameters(), strict=True))
    assert all(np.array_equal(expected[name], history[name]) for name in expected)


def test_a_finished_training_is_not_repeated(tmp_path):
    path = tmp_path / "run.pt"
    model, history = trained(checkpoint=path, steps=20)

    def never(generator):
        raise AssertionError("drew trials")

    again = fresh()
    second = train(
        again, never, steps=20, every=10, learning_rate=0.01, generator=np.random.default_rng(1), checkpoint=path
    )
    assert np.array_equal(history["loss"], second["loss"])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


def test_a_checkpoint_with_another_learning_rate_is_refused(tmp_path):
    trained(checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="learning_rate"):
        trained(checkpoint=tmp_path / "run.pt", learning_rate=0.02)


def test_the_first_step_moves_every_parameter_by_the_learning_rate_down_its_gradient():
    model, before = fresh(), fresh()
    trials = draw(np.random.default_rng(1))
    classification_loss(before(trials.inputs), trials.targets).backward()
    train(model, draw, steps=1, learning_rate=1e-3, generator=np.random.default_rng(1), device="cpu")
    for p, q in zip(model.parameters(), before.parameters(), strict=True):
        steep = q.grad.abs() > 1e-4
        torch.testing.assert_close((p - q)[steep], -1e-3 * q.grad.sign()[steep], rtol=1e-3, atol=1e-6)


def test_training_stops_when_it_is_told_to_and_the_history_is_a_table():
    _, history = trained(steps=500, stop=lambda row: row["step"] >= 40)
    assert history["step"].tolist() == [10, 20, 30, 40]
    assert {len(column) for column in history.values()} == {4}


def test_a_loss_that_is_not_finite_ends_the_training_and_shows():
    def broken(generator):
        trials = draw(generator)
        return Trials(trials.inputs * torch.nan, trials.targets)

    history = train(fresh(), broken, steps=50, every=5, learning_rate=0.1, generator=np.random.default_rng(0))
    assert history["step"].tolist() == [5]
    assert np.isnan(history["loss"]).all()


def test_the_loss_is_the_weighted_mean_over_the_marked_steps():
    generator = torch.Generator().manual_seed(0)
    logits, weights = torch.randn(5, 7, 3, generator=generator), torch.tensor([0.1, 1.0, 2.0])
    targets = torch.randint(0, 3, (5, 7), generator=generator)
    targets[:, ::2] = UNMARKED
    total = weight = 0.0
    for scores, target in zip(logits.flatten(0, 1), targets.flatten().tolist(), strict=True):
        if target != UNMARKED:
            total -= weights[target] * (scores[target] - scores.exp().sum().log())
            weight += weights[target]
    torch.testing.assert_close(classification_loss(logits, targets, weights), total / weight)


def test_accuracy_counts_the_steps_that_ask():
    targets = torch.tensor([[0, 2, UNMARKED, 1]])
    logits = torch.eye(3)[torch.tensor([[1, 2, 0, 2]])]
    assert accuracy(logits, targets) == pytest.approx(1 / 3)
    assert accuracy(logits, targets, blank=0) == pytest.approx(1 / 2)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"every": 0}, {"learning_rate": 0.0}, {"learning_rate": np.inf}])
def test_sizes_that_make_no_training_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        trained(**wrong)


def test_the_network_that_is_given_is_the_one_that_learns():
    model = fresh()
    before = copy.deepcopy(model.state_dict())
    train(model, draw, steps=2, learning_rate=0.01, generator=np.random.default_rng(0), device="cpu")
    assert all(not torch.equal(before[name], value) for name, value in model.state_dict().items())

"""Random numbers: the same seed gives the same values, in whatever order they are asked for, and states can be kept."""

from __future__ import annotations

import pytest
import torch
from parity import DEVICE, no_fallback

DRAWS = {
    "rand": lambda g: torch.rand(100, device=DEVICE, generator=g),
    "randn": lambda g: torch.randn(100, device=DEVICE, generator=g),
    "randint": lambda g: torch.randint(0, 10, (100,), device=DEVICE, generator=g),
    "bernoulli_": lambda g: torch.empty(100, device=DEVICE).bernoulli_(0.3, generator=g),
    "normal_": lambda g: torch.empty(100, device=DEVICE).normal_(2, 3, generator=g),
    "multinomial": lambda g: torch.multinomial(torch.ones(50, device=DEVICE), 10, generator=g),
    "randperm": lambda g: torch.randperm(100, device=DEVICE, generator=g),
    "exponential_": lambda g: torch.empty(100, device=DEVICE).exponential_(generator=g),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_seed_decides_every_draw(name: str) -> None:
    draw = DRAWS[name]
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append([draw(None).cpu(), draw(None).cpu()])
    assert torch.equal(values[0][0], values[1][0]) and torch.equal(values[0][1], values[1][1])
    assert not torch.equal(values[0][0], values[2][0])
    assert not torch.equal(values[0][0], values[0][1])


@pytest.mark.parametrize("name", DRAWS)
def test_a_generator_of_ones_own_repeats_itself(name: str) -> None:
    first = DRAWS[name](torch.Generator(DEVICE).manual_seed(5)).cpu()
    assert torch.equal(first, DRAWS[name](torch.Generator(DEVICE).manual_seed(5)).cpu())


def test_values_are_pinned_when_recorded_and_not_when_run() -> None:
    torch.manual_seed(3)
    a, b = torch.rand(4, device=DEVICE), torch.rand(4, device=DEVICE)
    late = b.cpu(), a.cpu()
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4, device=DEVICE).cpu(), late[1])
    assert torch.equal(torch.rand(4, device=DEVICE).cpu(), late[0])


def test_a_state_can_be_kept_and_restored() -> None:
    state = torch.remote_accelerator.get_rng_state()
    a = torch.rand(4, device=DEVICE)
    torch.remote_accelerator.set_rng_state(state)
    assert torch.equal(torch.rand(4, device=DEVICE).cpu(), a.cpu())
    generator = torch.Generator(DEVICE)
    kept = generator.get_state()
    b = torch.rand(4, device=DEVICE, generator=generator)
    generator.set_state(kept)
    assert torch.equal(torch.rand(4, device=DEVICE, generator=generator).cpu(), b.cpu())


def test_values_are_distributed_as_asked() -> None:
    with no_fallback():
        uniform = torch.empty(20_000, device=DEVICE).uniform_(2, 4).cpu()
        normal = torch.empty(20_000, device=DEVICE).normal_(1, 2).cpu()
        whole = torch.randint(-3, 4, (20_000,), device=DEVICE).cpu()
        coin = torch.empty(20_000, device=DEVICE).bernoulli_(0.25).cpu()
    assert 2 <= uniform.min() and uniform.max() < 4 and abs(uniform.mean() - 3) < 0.03
    assert abs(normal.mean() - 1) < 0.06 and abs(normal.std() - 2) < 0.06
    assert whole.min() == -3 and whole.max() == 3 and abs(whole.float().mean()) < 0.08
    assert abs(coin.mean() - 0.25) < 0.02 and set(coin.tolist()) == {0.0, 1.0}


def test_dropout_drops_its_share_and_scales_the_rest() -> None:
    x = torch.ones(10_000, device=DEVICE)
    with no_fallback():
        y = torch.nn.functional.dropout(x, 0.25, training=True).cpu()
    assert abs(float((y == 0).float().mean()) - 0.25) < 0.03
    assert torch.allclose(y[y != 0], torch.tensor(1 / 0.75))
    assert torch.equal(torch.nn.functional.dropout(x, 0.25, training=False).cpu(), x.cpu())


def test_samples_are_drawn_by_weight_and_once() -> None:
    weights = torch.tensor([0.0, 1.0, 3.0, 0.0], device=DEVICE)
    drawn = torch.multinomial(weights, 4000, replacement=True).cpu()
    assert set(drawn.tolist()) == {1, 2} and abs(float((drawn == 2).float().mean()) - 0.75) < 0.04
    assert sorted(torch.multinomial(torch.ones(8, device=DEVICE), 8).tolist()) == list(range(8))

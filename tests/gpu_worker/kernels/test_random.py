"""Random numbers: Philox, and what is drawn with it."""

from __future__ import annotations

import pytest
import torch
from cases import check, close, make
from kernel_library import KernelError, call


def philox(seed, offset, block):
    counter = [block & 0xFFFFFFFF, block >> 32, offset & 0xFFFFFFFF, offset >> 32]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(b >> 32) ^ counter[1] ^ key[0], b & 0xFFFFFFFF, (a >> 32) ^ counter[3] ^ key[1], a & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def test_philox_gives_the_published_numbers():
    # Random123's known answers for philox4x32-10.
    assert philox(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    all_ones = 0xFFFFFFFFFFFFFFFF
    assert philox(all_ones, all_ones, all_ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_random_numbers_are_a_function_of_seed_offset_and_element():
    seed, offset = 1234567890123, 77
    words = [w for block in range(5) for w in philox(seed, offset, block)]
    uniform = call("UNIFORM", [], [[20], -1.0, 3.0, seed, offset], dtype=torch.float32)[0]
    expected = torch.tensor([-1.0 + 4.0 * ((w >> 8) * 2.0**-24) for w in words])
    close(uniform, expected)
    keep = call("BERNOULLI", [], [[20], 0.3, seed, offset], dtype=torch.float32)[0]
    assert torch.equal(keep, torch.tensor([float((w >> 8) * 2.0**-24 < 0.3) for w in words]))
    integers = call("RANDINT", [], [[10], -5, 100, seed, offset], dtype=torch.int64)[0]
    draws = [words[2 * i] | words[2 * i + 1] << 32 for i in range(10)]
    assert integers.tolist() == [-5 + d % 105 for d in draws]
    many = check("UNIFORM", [], [], [[3, 50000], 0.0, 1.0, 5, 6], dtype=torch.float32)[0]
    assert 0 <= many.min() and many.max() < 1 and abs(many.mean() - 0.5) < 0.01
    normal = check("NORMAL", [], [], [[200000], 2.0, 3.0, 5, 6], dtype=torch.float32)[0]
    assert abs(normal.mean() - 2) < 0.05 and abs(normal.std() - 3) < 0.05


def test_dropout_drops_and_scales():
    x = make((300, 100))
    out, mask = check("DROPOUT", [], [x], [0.25, 3, 4])
    assert abs(mask.float().mean() - 0.75) < 0.02
    close(out, torch.where(mask, x / 0.75, torch.zeros(())))


def test_multinomial_draws_by_weight():
    weights = torch.tensor([[0.0, 1.0, 3.0], [5.0, 0.0, 5.0]])
    drawn = call("MULTINOMIAL", [weights], [20000, True, 1, 2])[0]
    share = torch.stack([(drawn == c).float().mean(1) for c in range(3)], 1)
    torch.testing.assert_close(share, torch.tensor([[0, 0.25, 0.75], [0.5, 0, 0.5]]), rtol=0, atol=0.02)
    drawn = call("MULTINOMIAL", [torch.tensor([0.0, 1.0, 2.0, 3.0])], [3, False, 1, 2])[0]
    assert sorted(drawn.tolist()) == [1, 2, 3]
    first = torch.stack([call("MULTINOMIAL", [torch.tensor([1.0, 3.0])], [1, False, seed, 0])[0] for seed in range(2000)])
    assert abs(first.float().mean() - 0.75) < 0.04
    with pytest.raises(KernelError):
        call("MULTINOMIAL", [torch.tensor([1.0, -1.0])], [1, True, 1, 2])

"""Random programs of views, in-place writes and arithmetic give the same tensors remotely and locally, whatever they share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity import DEVICE, error

STEPS_MAX = 12
BOUND = 1e-4  # values grow over a program; parity of single ops is tested elsewhere

Tensors = list[torch.Tensor]
Pick = Callable[[int], int]


def view(x: torch.Tensor, kind: int, pick: Pick) -> torch.Tensor:
    """One view of x, chosen by kind; only those that x's shape allows."""
    if kind == 0 and x.dim() >= 1:
        dim = pick(x.dim())
        start = pick(x.size(dim) + 1)
        return x.narrow(dim, start, pick(x.size(dim) - start + 1))
    if kind == 1 and x.dim() >= 2:
        return x.transpose(pick(x.dim()), pick(x.dim()))
    if kind == 2 and x.dim() >= 1 and x.size(dim := pick(x.dim())) > 0:
        return x.select(dim, pick(x.size(dim)))
    if kind == 3 and x.dim() < 4:
        return x.unsqueeze(pick(x.dim() + 1))
    if kind == 4 and x.is_contiguous():
        return x.view(-1)
    if kind == 5 and x.dim() >= 1:
        return x[(slice(None),) * pick(x.dim()) + (slice(pick(3), None, 1 + pick(3)),)]
    if kind == 6 and x.dim() >= 2:
        return x.diagonal(pick(3) - 1, 0, 1)
    if kind == 7 and x.dim() >= 1:
        return x.unfold(dim, min(2, x.size(dim)), 1) if x.size(dim := pick(x.dim())) > 0 and x.dim() < 4 else x
    if kind == 8:
        return x.squeeze()
    if kind == 9:
        return x.detach()
    return x


def write(x: torch.Tensor, other: torch.Tensor, kind: int) -> None:
    """One in-place write to x."""
    if kind == 0:
        x.add_(1.5)
    elif kind == 1:
        x.mul_(0.5)
    elif kind == 2:
        x.fill_(2.0)
    elif kind == 3 and x.shape == other.shape:
        x.copy_(other.clone())
    elif kind == 4 and other.dim() == 0:
        x.sub_(other.clone())
    elif kind == 5:
        x.neg_()
    elif kind == 6:
        x.zero_()
    elif kind == 7:
        x.clamp_(-2, 2)
    elif kind == 8:
        x.masked_fill_(x > 1, -1.0)


def compute(x: torch.Tensor, other: torch.Tensor, kind: int) -> torch.Tensor:
    """A fresh tensor from two."""
    if kind == 0:
        return x + 1
    if kind == 1 and x.shape == other.shape:
        return x * other
    if kind == 2 and x.dim() >= 1:
        return x.sum(0)
    if kind == 3 and x.dim() == 2:
        return x @ x.t() if x.size(0) <= 6 else x.tanh()
    if kind == 4 and x.dim() >= 1:
        return torch.cat([x, x])
    if kind == 5:
        return x.clone()
    if kind == 6:
        return x.reshape(-1)
    if kind == 7:
        return (x > other.sum()).to(x.dtype)
    return x.tanh()


def run(device: str, program: list[tuple[int, int, int, int, list[int]]]) -> Tensors:
    tensors = [torch.arange(24.0).reshape(2, 3, 4).sub(10).div(4).to(device), torch.arange(12.0).reshape(3, 4).div(6).to(device)]
    for action, which, other, kind, numbers in program:
        numbers = list(numbers)

        def pick(below: int, numbers: list[int] = numbers) -> int:
            return (numbers.pop() if numbers else 0) % max(below, 1)

        x, y = tensors[which % len(tensors)], tensors[other % len(tensors)]
        if action == 0:
            tensors.append(view(x, kind, pick))
        elif action == 1:
            # A write to a view that overlaps itself has no defined result anywhere.
            if all(stride > 0 for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1) and not overlaps(x):
                write(x, y, kind % 9)
        elif x.numel() < 500:
            tensors.append(compute(x, y, kind % 9))
    return tensors


def overlaps(x: torch.Tensor) -> bool:
    reach = 0
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


step = st.tuples(
    st.integers(0, 2),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 10),
    st.lists(st.integers(0, 6), min_size=3, max_size=3),
)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(step, min_size=1, max_size=STEPS_MAX))
def test_a_random_program_of_views_and_writes_gives_what_the_cpu_gives(
    program: list[tuple[int, int, int, int, list[int]]],
) -> None:
    expected, actual = run("cpu", program), run(DEVICE, program)
    for a, b in zip(actual, expected, strict=True):
        assert a.stride() == b.stride() or b.numel() <= 1
        assert error(a, b) <= BOUND


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(step, min_size=1, max_size=STEPS_MAX), st.integers(0, STEPS_MAX))
def test_reading_in_the_middle_changes_nothing(program: list[tuple[int, int, int, int, list[int]]], cut: int) -> None:
    whole = run(DEVICE, program)
    expected = [tensor.cpu() for tensor in whole]
    first = [tensor.cpu() for tensor in run(DEVICE, program[:cut])]
    again = run(DEVICE, program)
    for tensor in again:
        tensor.cpu()
    assert all(torch.equal(a.cpu(), b) for a, b in zip(again, expected, strict=True))
    assert len(first) <= len(expected)

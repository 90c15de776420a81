"""Tensors on the device behave as PyTorch's own: views, in-place writes, storages, copies, printing, saving."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import djinn
import pytest
import torch
from parity import DEVICE, assert_close, no_fallback


def both(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    cpu = torch.randn(*shape).mul(4).to(dtype)
    return cpu, cpu.to(DEVICE)


def test_the_device_is_where_tensors_say_they_are() -> None:
    x = torch.ones(2, 3, device=DEVICE)
    assert x.device.type == DEVICE
    assert x.is_remote_accelerator
    assert not x.is_cuda
    assert torch.device(DEVICE).type == DEVICE
    assert x.cpu().device.type == "cpu"


def test_shapes_are_known_without_asking_a_worker() -> None:
    before = djinn.stats()["reads"]
    x = torch.randn(5, 7, device=DEVICE)
    y = (x @ x.t()).softmax(-1)[1:].sum(0, keepdim=True)
    assert y.shape == (1, 5) and y.stride() == (5, 1) and y.dtype == torch.float32
    assert djinn.stats()["reads"] == before


def test_shapes_never_come_from_meta_kernels() -> None:
    before = djinn.stats()["meta_dispatches"]
    x = torch.randn(4, 4, device=DEVICE)
    torch.nn.functional.layer_norm(x.add(1).mul(x).t(), (4,)).sum().item()
    assert djinn.stats()["meta_dispatches"] == before


WRITES = {
    "slice": lambda x: x[1:3].add_(1),
    "transposed row": lambda x: x.t()[0].zero_(),
    "view": lambda x: x.view(-1)[2:9].mul_(3),
    "step": lambda x: x[::2, 1::2].fill_(7),
    "assignment": lambda x: x.__setitem__((slice(None), 0), 5.0),
    "copy from itself": lambda x: x[0].copy_(x[1]),
    "broadcast": lambda x: x.sub_(x[0].clone()),
    "diagonal": lambda x: x.diagonal().fill_(9),
    "masked": lambda x: x.__setitem__(x > 0, -1.0),
    "masked fill": lambda x: x.masked_fill_(x > 0, 2.0),
    "index put": lambda x: x.__setitem__(torch.tensor([0, 2]), x[1].clone()),
    "accumulate": lambda x: x.index_put_(
        (torch.tensor([0, 0, 2], device=x.device),), torch.ones(3, 4, device=x.device), accumulate=True
    ),
    "out": lambda x: torch.add(x[0], 1, out=x[2]),
    "split": lambda x: x.split(2)[1].mul_(2),
    "unbind": lambda x: x.unbind(1)[3].add_(x.unbind(1)[0]),
    "chunk": lambda x: x.chunk(2, dim=1)[0].neg_(),
    "flatten": lambda x: x.flatten()[::3].mul_(2),
    "expand source": lambda x: x.copy_(torch.arange(4.0, device=x.device)),
    "data": lambda x: x.data.mul_(2),
    "detach": lambda x: x.detach().add_(1),
    "as_strided": lambda x: x.as_strided((2, 2), (4, 1), 5).add_(10),
    "select of select": lambda x: x[1][2].fill_(3),
    "exchange": lambda x: x.copy_(x.flip(0)),
    "scatter": lambda x: x.scatter_(1, torch.tensor([[0], [1], [2], [3]], device=x.device), 1.5),
    "cumulative": lambda x: x.cumsum_(0),
    "clamp": lambda x: x.clamp_(-1, 1),
    "pow": lambda x: x.pow_(2),
}


@pytest.mark.parametrize("name", WRITES)
def test_an_in_place_write_is_seen_through_every_view(name: str) -> None:
    cpu, remote = both(4, 4)
    views = [lambda x: x, lambda x: x.t(), lambda x: x[1:], lambda x: x.view(-1)]
    seen = [(view(cpu), view(remote)) for view in views]
    WRITES[name](cpu)
    WRITES[name](remote)
    for expected, actual in seen:
        assert_close(actual, expected)


def test_a_window_on_a_storage_stays_a_window_after_reshaping() -> None:
    cpu, remote = both(2, 3, 4)
    for x in (cpu, remote):
        y = x.permute(2, 0, 1)[1:].transpose(0, 1)
        y.add_(1)
        y.reshape(-1)[0] = 99
    assert_close(remote, cpu)


def test_resize_and_set_give_what_the_cpu_gives() -> None:
    cpu, remote = both(3, 4)
    for x in (cpu, remote):
        x.resize_(2, 4)
    assert_close(remote, cpu)
    for x in (cpu, remote):
        x.resize_(4, 4)[2:].zero_()
    assert_close(remote[:2], cpu[:2])
    other_cpu, other = both(5)
    cpu.set_(other_cpu)
    remote.set_(other)
    other.add_(1)
    other_cpu.add_(1)
    assert_close(remote, cpu)


def test_set_data_exchanges_the_storage() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, device=DEVICE))
    parameter.data = torch.full((2,), 5.0, device=DEVICE)
    assert parameter.cpu().tolist() == [5.0, 5.0]


def test_a_view_as_another_dtype_shares_its_bytes() -> None:
    cpu, remote = both(4)
    for x in (cpu, remote):
        x.view(torch.int32).bitwise_and_(-256)
    assert torch.equal(remote.cpu(), cpu)
    assert torch.equal(remote.view(torch.int32).cpu(), cpu.view(torch.int32))


def test_complex_numbers_can_be_stored_and_moved() -> None:
    cpu = torch.randn(3, dtype=torch.complex64)
    remote = cpu.to(DEVICE)
    assert torch.equal(remote.cpu(), cpu)
    assert torch.equal((remote * 2).cpu(), cpu * 2)
    assert torch.equal(torch.view_as_real(remote).cpu(), torch.view_as_real(cpu))


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ],
)
def test_every_dtype_comes_back_as_it_went(dtype: torch.dtype) -> None:
    cpu, remote = both(3, 5, dtype=dtype)
    assert remote.dtype == dtype
    assert torch.equal(remote.cpu(), cpu)
    assert torch.equal(remote.t().cpu(), cpu.t())
    assert torch.equal(remote[:, 1].cpu(), cpu[:, 1])


def test_dtypes_that_the_device_does_not_hold_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="(?i)float8|uint16"):
        torch.zeros(2, dtype=torch.uint16).to(DEVICE)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_tensors_without_elements_work(shape: tuple[int, ...]) -> None:
    cpu, remote = both(*shape)
    assert_close(remote + 1, cpu + 1)
    assert_close(torch.cat([remote, remote]), torch.cat([cpu, cpu]))
    assert_close(remote.sum(), cpu.sum())
    assert_close(remote.t() if remote.dim() == 2 else remote, cpu.t() if cpu.dim() == 2 else cpu)
    remote.add_(1)
    assert remote.cpu().shape == shape


def test_scalars_come_out_as_python_numbers() -> None:
    assert torch.tensor(3, device=DEVICE).item() == 3
    assert isinstance(torch.tensor(3, device=DEVICE).item(), int)
    assert torch.tensor(2.5, device=DEVICE).item() == 2.5
    assert torch.tensor(True, device=DEVICE).item() is True
    assert bool(torch.ones(1, device=DEVICE) > 0)
    assert torch.arange(4, device=DEVICE).tolist() == [0, 1, 2, 3]
    assert int(torch.tensor([7], device=DEVICE)) == 7
    assert [10, 20, 30][torch.tensor(1, device=DEVICE)] == 20


def test_printing_shows_the_values_and_the_device() -> None:
    text = repr(torch.tensor([1.5, 2.0], device=DEVICE))
    assert "1.5000, 2.0000" in text and "remote_accelerator" in text
    assert "Parameter" in repr(torch.nn.Parameter(torch.ones(1, device=DEVICE)))


def test_equal_compares_values_and_shapes() -> None:
    _, a = both(3, 3)
    assert torch.equal(a, a.clone())
    assert not torch.equal(a, a + 1)
    assert not torch.equal(a, a[:2])


def test_a_saved_tensor_loads_on_either_side() -> None:
    cpu, remote = both(4, 3)
    shared = {"a": remote, "row": remote[1], "half": remote.half()}
    buffer = io.BytesIO()
    torch.save(shared, buffer)
    for place in (None, "cpu", DEVICE):
        buffer.seek(0)
        loaded = torch.load(buffer, map_location=place)
        assert loaded["a"].device.type == (place or DEVICE)
        assert torch.equal(loaded["a"].cpu(), cpu)
        assert torch.equal(loaded["half"].cpu(), cpu.half())
        loaded["a"].add_(1)
        assert torch.equal(loaded["row"].cpu(), cpu[1] + 1)
    buffer = io.BytesIO()
    torch.save(cpu, buffer)
    buffer.seek(0)
    assert torch.equal((torch.load(buffer, map_location=DEVICE) * 2).cpu(), cpu * 2)


def test_saving_leaves_the_values_where_and_as_they_are() -> None:
    _, remote = both(8)
    with no_fallback():
        torch.save(remote, io.BytesIO())
        assert remote.add(1).shape == (8,)


def test_copies_are_deep() -> None:
    cpu, remote = both(4)
    with no_fallback():
        other = copy.deepcopy(remote)
    other.zero_()
    assert_close(remote, cpu)
    assert other.device.type == DEVICE and float(other.abs().sum()) == 0
    thawed = pickle.loads(pickle.dumps(remote))
    assert thawed.device.type == DEVICE
    assert_close(thawed, cpu)


def test_moving_between_devices_of_the_pool_keeps_the_values() -> None:
    if len(djinn.devices()) < 2:
        pytest.skip("the pool has one device")
    cpu = torch.randn(3, 4)
    one = cpu.to(f"{DEVICE}:1")
    assert one.device == torch.device(DEVICE, 1)
    zero = one.to(f"{DEVICE}:0")
    assert_close(zero + 1, cpu + 1)
    assert_close(one * 2, cpu * 2)
    with pytest.raises(RuntimeError, match="same device"):
        _ = one + zero


def test_mixing_with_the_cpu_is_refused_as_on_any_device() -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        _ = torch.ones(3, device=DEVICE) + torch.ones(3)
    assert (torch.ones(3, device=DEVICE) + torch.tensor(2.0)).tolist() == [3, 3, 3]


def test_shape_errors_are_raised_at_the_line_that_makes_them() -> None:
    with pytest.raises(RuntimeError, match=r"size of tensor a \(3\) must match the size of tensor b \(4\)"):
        _ = torch.ones(3, device=DEVICE) + torch.ones(4, device=DEVICE)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.ones(2, 3, device=DEVICE) @ torch.ones(2, 3, device=DEVICE)
    with pytest.raises(IndexError):
        torch.ones(3, device=DEVICE).sum(2)
    with pytest.raises(IndexError):
        _ = torch.ones(3, device=DEVICE)[3]
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        torch.ones(3, device=DEVICE).add_(torch.ones(2, 3, device=DEVICE))
    with pytest.raises(RuntimeError, match="can't be cast"):
        torch.ones(3, dtype=torch.int64, device=DEVICE).add_(1.5)


def test_an_op_without_a_native_kernel_runs_here_and_is_counted() -> None:
    cpu, remote = both(4, 4)
    cpu = cpu @ cpu.t() + 4 * torch.eye(4)
    remote = cpu.to(DEVICE)
    before = djinn.stats()["fallbacks"]
    assert_close(torch.linalg.cholesky(remote), torch.linalg.cholesky(cpu), 1e-4)
    after = djinn.stats()
    assert after["fallbacks"] > before
    assert any("cholesky" in name for name in after["fallback_ops"])


def test_a_fallback_writes_back_what_it_changes() -> None:
    cpu, remote = both(4, 4)
    for x in (cpu, remote):
        x[1:].put_(torch.tensor([0, 5], device=x.device), torch.tensor([1.0, 2.0], device=x.device))
    assert_close(remote, cpu)


def test_a_dead_tensor_is_freed() -> None:
    x = torch.ones(4, device=DEVICE)
    gone = weakref.ref(x.untyped_storage())
    del x
    gc.collect()
    assert gone() is None


def test_a_chain_of_a_hundred_thousand_ops_does_not_overflow_the_stack() -> None:
    x = torch.zeros(2, device=DEVICE)
    for _ in range(100_000):
        x = x + 1
    assert x.tolist() == [100_000.0, 100_000.0]
    for _ in range(50_000):
        x = x * 1
    del x


def test_results_do_not_depend_on_where_python_reads_in_between() -> None:
    cpu, remote = both(4, 4)
    for x in (cpu, remote):
        for i in range(4):
            x[i].add_(float(x.sum()) / 100)
    assert_close(remote, cpu)


def test_the_device_module_tells_what_the_head_knows() -> None:
    module = torch.remote_accelerator
    free, total = module.mem_get_info()
    assert 0 < free <= total and module.memory_allocated() == total - free
    assert module.get_device_name() and module.device_count() == len(djinn.devices())
    with pytest.raises(RuntimeError, match="does not exist"):
        module.mem_get_info(63)
    module.synchronize()
    event = module.Event(enable_timing=True)
    event.record()
    later = module.Event(enable_timing=True)
    later.record()
    assert event.elapsed_time(later) >= 0 and event.query()


WIDE = {
    "convolution of float64": lambda d: torch.nn.functional.conv2d(
        torch.ones(1, 2, 5, 5, dtype=torch.float64).to(d), torch.ones(3, 2, 2, 2, dtype=torch.float64).to(d)
    ),
    "transposed convolution": lambda d: torch.nn.functional.conv_transpose2d(
        torch.ones(1, 2, 5, 5).to(d), torch.ones(2, 3, 2, 2).to(d)
    ),
    "convolution in three dimensions": lambda d: torch.nn.functional.conv3d(
        torch.ones(1, 2, 4, 4, 4).to(d), torch.ones(3, 2, 2, 2, 2).to(d)
    ),
    "pooling of float64": lambda d: torch.nn.functional.max_pool2d(
        torch.arange(16, dtype=torch.float64).view(1, 1, 4, 4).to(d), 2
    ),
    "layer norm of float64": lambda d: torch.nn.functional.layer_norm(
        torch.arange(6, dtype=torch.float64).view(2, 3).to(d), (3,)
    ),
    "attention of float64": lambda d: torch.nn.functional.scaled_dot_product_attention(
        *[torch.arange(12, dtype=torch.float64).view(1, 1, 3, 4).to(d)] * 3
    ),
    "conversion to complex": lambda d: torch.ones(3).to(d).to(torch.complex64).real,
    "complex zeros written in part": lambda d: torch.view_as_real(
        torch.empty(3, dtype=torch.complex64).to(d).zero_()[1:].fill_(2j)
    ),
}


@pytest.mark.parametrize("name", WIDE)
def test_what_kernels_do_not_take_is_still_computed(name: str) -> None:
    assert_close(WIDE[name](DEVICE), WIDE[name]("cpu"))


def test_a_large_value_can_be_read_after_it_was_computed_for_something_else() -> None:
    x = torch.arange(30000, device=DEVICE, dtype=torch.float64) * 2
    assert x.sum().item() == 30000 * 29999
    assert torch.equal(x.cpu(), torch.arange(30000, dtype=torch.float64) * 2)

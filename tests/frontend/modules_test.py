"""Modules: tied weights, state, paths, training."""

from __future__ import annotations

import copy
import io

import djinn
import torch
from parity import DEVICE, assert_close, no_fallback
from torch import nn


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


def test_tied_weights_stay_tied_both_ways() -> None:
    model = Tied().to(DEVICE)
    assert model.head.weight is model.embed.weight
    assert model.head.weight.device.type == DEVICE
    model(torch.tensor([1], device=DEVICE)).sum().backward()
    assert model.cpu().head.weight is model.embed.weight


def test_moving_keeps_requires_grad_and_parameters_of_optimizers_usable() -> None:
    model = nn.Linear(3, 3)
    model.bias.requires_grad_(False)
    model = model.to(DEVICE)
    assert model.weight.requires_grad and not model.bias.requires_grad
    assert isinstance(model.weight, nn.Parameter)


def test_a_state_dict_goes_out_and_comes_back() -> None:
    torch.manual_seed(1)
    local, model = Tied(), Tied().to(DEVICE)
    model.load_state_dict(local.state_dict())
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh = Tied()
    fresh.load_state_dict(torch.load(buffer, map_location="cpu"))
    ids = torch.tensor([[1, 2, 3]])
    assert_close(model(ids.to(DEVICE)), local(ids))
    assert_close(fresh(ids), local(ids))


def test_a_deep_copy_of_a_model_is_its_own() -> None:
    model = Tied().to(DEVICE)
    other = copy.deepcopy(model)
    assert other.head.weight is other.embed.weight
    with torch.no_grad():
        other.head.weight.zero_()
    assert float(model.head.weight.abs().sum()) > 0


def test_a_training_step_equals_the_local_one() -> None:
    torch.manual_seed(0)
    local = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4), nn.LayerNorm(4))
    remote = copy.deepcopy(local).to(DEVICE)
    x, target = torch.randn(5, 8), torch.randn(5, 4)
    for model, device in ((local, "cpu"), (remote, DEVICE)):
        for optimizer in (
            torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            torch.optim.AdamW(model.parameters(), lr=0.01),
        ):
            for _ in range(3):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(x.to(device)), target.to(device))
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
    for a, b in zip(remote.parameters(), local.parameters(), strict=True):
        assert_close(a, b)


def test_attention_and_convolution_have_gradients() -> None:
    torch.manual_seed(0)
    local = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 8, 3, stride=2),
            "norm": nn.BatchNorm2d(8),
            "attention": nn.MultiheadAttention(8, 2, batch_first=True),
        }
    )
    remote = copy.deepcopy(local).to(DEVICE)
    image = torch.randn(2, 3, 9, 9)

    def loss(model: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        y = model["norm"](model["conv"](x)).relu().flatten(2).transpose(1, 2)
        return model["attention"](y, y, y, need_weights=False)[0].pow(2).mean()

    loss(local, image).backward()
    loss(remote, image.to(DEVICE)).backward()
    for (name, a), b in zip(remote.named_parameters(), local.parameters(), strict=True):
        assert a.grad is not None, name
        assert_close(a.grad, b.grad)
    assert_close(remote["norm"].running_mean, local["norm"].running_mean)


def test_recurrent_layers_equal_the_local_ones() -> None:
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        torch.manual_seed(0)
        local = kind(4, 6, num_layers=2, batch_first=True)
        remote = copy.deepcopy(local).to(DEVICE)
        x = torch.randn(2, 3, 4)
        expected, actual = local(x)[0], remote(x.to(DEVICE))[0]
        assert_close(actual, expected)
        expected.sum().backward()
        actual.sum().backward()
        assert_close(remote.weight_hh_l0.grad, local.weight_hh_l0.grad)


def test_evaluation_of_batch_norm_and_dropout_is_native() -> None:
    local = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    remote = copy.deepcopy(local).to(DEVICE)
    image = torch.randn(2, 3, 8, 8)
    with torch.no_grad(), no_fallback():
        assert_close(remote(image.to(DEVICE)), local(image))


def test_nodes_carry_the_path_of_their_module() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2))).to(DEVICE).eval()
    with djinn.capture(), torch.no_grad():
        model(torch.ones(1, 3, device=DEVICE)).cpu()
    text = str(djinn.get_graph())
    assert "Sequential.1.1" in text
    assert "Sequential.0" in text


def test_a_capture_holds_the_ops_of_its_block() -> None:
    x = torch.ones(2, 2, device=DEVICE)
    with djinn.capture():
        ((x @ x).relu() + 1).cpu()
    graph = djinn.get_graph()
    text = str(graph).upper()
    assert "MM" in text and "RELU" in text


def test_execute_model_takes_and_gives_cpu_tensors() -> None:
    model = nn.Linear(4, 2)
    x = torch.randn(3, 4)
    expected = model(x)
    assert_close(djinn.execute_model(model, x), expected)
    assert_close(djinn.execute_model(model, (x,)), expected)
    assert_close(djinn.execute_model(model, {"input": x}), expected)


def test_hooks_and_exceptions_leave_the_module_path_as_it_was() -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    model = nn.Sequential(nn.Identity(), Fails())
    from djinn import _djinn_torch as shim

    try:
        model(torch.ones(1))
    except ValueError:
        pass
    assert shim.set_module(0) == 0

"""Training on the device gives what the local CPU gives: losses, gradients, optimizer steps; with no op on the client's CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from parity import DEVICE, assert_close, no_fallback

F = torch.nn.functional
IDS = torch.randint(3, 99, (2, 16), generator=torch.Generator().manual_seed(1))
BATCHES = torch.randint(3, 99, (5, 2, 16), generator=torch.Generator().manual_seed(2))


def gpt2(dropout: float = 0.0) -> Any:
    ends = {"bos_token_id": 1, "eos_token_id": 99, "pad_token_id": 99}
    drops = {name: dropout for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    return hf.GPT2LMHeadModel(
        hf.GPT2Config(n_embd=64, n_head=4, n_layer=2, vocab_size=100, n_positions=64, **ends, **drops)
    ).train()


def resnet() -> Any:
    config = hf.ResNetConfig(embedding_size=16, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_labels=10)
    return hf.ResNetForImageClassification(config).train()


def assert_same_training(local: torch.nn.Module, remote: torch.nn.Module) -> None:
    """Every gradient, parameter and buffer of `remote` is that of `local`."""
    others = dict(remote.named_parameters())
    for name, parameter in local.named_parameters():
        assert (parameter.grad is None) == (others[name].grad is None), name
        if parameter.grad is not None:
            assert_close(others[name].grad, parameter.grad)
        assert_close(others[name], parameter)
    for name, buffer in local.named_buffers():
        assert_close(dict(remote.named_buffers())[name], buffer)


LANGUAGE_LOSSES: dict[str, Callable[[Any, str], torch.Tensor]] = {
    "plain": lambda m, d: m(IDS.to(d), labels=IDS.to(d)).loss,
    "masked": lambda m, d: (
        m(IDS.to(d), attention_mask=(IDS > 20).long().to(d), labels=IDS.masked_fill(IDS < 30, -100).to(d)).loss
    ),
    "summed": lambda m, d: m(IDS.to(d)).logits.float().pow(2).sum().mul(1e-3),
}


@pytest.mark.parametrize("name", LANGUAGE_LOSSES)
def test_the_loss_and_gradients_of_a_language_model_are_those_of_the_local_cpu(name: str) -> None:
    local = gpt2()
    remote = copy.deepcopy(local).to(DEVICE)
    expected = LANGUAGE_LOSSES[name](local, "cpu")
    expected.backward()
    with no_fallback():
        loss = LANGUAGE_LOSSES[name](remote, DEVICE)
        loss.backward()
        assert_close(loss, expected)
    assert_same_training(local, remote)


SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 128}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 100, "decoder_start_token_id": 0}
MODELS: dict[str, tuple[Callable[[], Any], Callable[[Any, str], torch.Tensor]]] = {
    "bert": (
        lambda: hf.BertForSequenceClassification(
            hf.BertConfig(
                **SMALL, vocab_size=100, max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
            )
        ),
        lambda m, d: m(IDS.to(d), attention_mask=(IDS > 20).long().to(d), labels=torch.tensor([0, 1]).to(d)).loss,
    ),
    "llama": (
        lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, num_key_value_heads=2, vocab_size=100)),
        lambda m, d: m(IDS.to(d), labels=IDS.to(d)).loss,
    ),
    "t5": (
        lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5, dropout_rate=0.0)),
        lambda m, d: m(input_ids=IDS.to(d), labels=IDS[:, :5].contiguous().to(d)).loss,
    ),
    "vit": (
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**SMALL, image_size=32, patch_size=8, num_labels=4)),
        lambda m, d: m(torch.linspace(0, 1, 6144).view(2, 3, 32, 32).to(d), labels=torch.tensor([0, 1]).to(d)).loss,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_other_models_train_as_on_the_local_cpu(name: str) -> None:
    make, loss_of = MODELS[name]
    local = make().train()
    remote = copy.deepcopy(local).to(DEVICE)
    expected = loss_of(local, "cpu")
    expected.backward()
    with no_fallback():
        loss = loss_of(remote, DEVICE)
        loss.backward()
        assert_close(loss, expected)
    assert_same_training(local, remote)


# Small ones: AdamW makes steps of a gradient's rounding errors where the gradient itself is zero (the bias of attention's keys).
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=3e-4),
    "AdamW, a parameter at a time": lambda p: torch.optim.AdamW(p, lr=3e-4, foreach=False),
    "AdamW with amsgrad": lambda p: torch.optim.AdamW(p, lr=3e-4, amsgrad=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "SGD with Nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, foreach=True),
}


def steps(model: Any, optimizer: torch.optim.Optimizer, device: str, norm: float | None = 1.0) -> list[torch.Tensor]:
    losses = []
    for ids in BATCHES:
        optimizer.zero_grad(set_to_none=True)
        loss = model(ids.to(device), labels=ids.to(device)).loss
        loss.backward()
        if norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
        optimizer.step()
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_give_the_weights_of_the_local_cpu(name: str) -> None:
    local = gpt2()
    remote = copy.deepcopy(local).to(DEVICE)
    expected = steps(local, OPTIMIZERS[name](local.parameters()), "cpu")
    with no_fallback():
        losses = steps(remote, OPTIMIZERS[name](remote.parameters()), DEVICE)
        for actual, wanted in zip(losses, expected, strict=True):
            assert_close(actual, wanted)
    assert_same_training(local, remote)


def weights_after(count: int) -> list[torch.Tensor]:
    torch.manual_seed(3)
    model = gpt2(dropout=0.1).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for i in range(count):
        ids = BATCHES[i % len(BATCHES)].to(DEVICE)
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return [parameter.detach().cpu() for parameter in model.parameters()]


def test_twenty_steps_with_dropout_twice_give_the_same_bits() -> None:
    with no_fallback():
        first, second, fewer = weights_after(20), weights_after(20), weights_after(19)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert not all(torch.equal(a, b) for a, b in zip(first, fewer, strict=True))


def test_frozen_weights_get_no_gradient_and_the_others_the_right_one() -> None:
    local = gpt2()
    for name, parameter in local.named_parameters():
        parameter.requires_grad_("ln_" in name or "c_fc.bias" in name)
    remote = copy.deepcopy(local).to(DEVICE)
    local(IDS, labels=IDS).loss.backward()
    with no_fallback():
        remote(IDS.to(DEVICE), labels=IDS.to(DEVICE)).loss.backward()
    assert_same_training(local, remote)


@pytest.mark.parametrize("is_last", [False, True])
def test_a_residual_network_trains_as_on_the_local_cpu(is_last: bool) -> None:
    local = resnet()
    remote = copy.deepcopy(local).to(DEVICE)
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    if is_last:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([1, 2, 3, 9])
    for model, device in ((local, "cpu"), (remote, DEVICE)):
        with no_fallback():
            loss = model(images.to(device), labels=labels.to(device)).loss
            loss.backward()
    assert_same_training(local, remote)


def small_network(*layers: torch.nn.Module) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), *layers, torch.nn.Flatten(), torch.nn.LazyLinear(5))


NN = torch.nn
NETWORKS: dict[str, Callable[[], list[torch.nn.Module]]] = {
    "max pool": lambda: [NN.ReLU(), NN.MaxPool2d(3, 2, 1)],
    "avg pool": lambda: [NN.Sigmoid(), NN.AvgPool2d(3, 2, 1)],
    "adaptive pool": lambda: [NN.Tanh(), NN.AdaptiveAvgPool2d((3, 2))],
    "group norm": lambda: [NN.GroupNorm(2, 8), NN.SiLU()],
    "batch norm": lambda: [NN.BatchNorm2d(8), NN.LeakyReLU(0.1)],
    "batch norm without weights": lambda: [NN.BatchNorm2d(8, affine=False, momentum=0.3), NN.ELU()],
    "instance norm": lambda: [NN.InstanceNorm2d(8, affine=True), NN.Hardtanh()],
    "depthwise": lambda: [NN.Conv2d(8, 16, 3, stride=2, groups=8), NN.GELU()],
    "dilated": lambda: [NN.Conv2d(8, 4, 3, dilation=2, padding=2, bias=False), NN.ReLU6(), NN.Flatten(2), NN.Conv1d(4, 3, 5)],
    "softmax": lambda: [NN.GELU("tanh"), NN.Softmax(1), NN.LogSoftmax(2), NN.Softplus()],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_small_network_trains_as_on_the_local_cpu(name: str) -> None:
    images = torch.rand(3, 3, 10, 9, generator=torch.Generator().manual_seed(2))
    local = small_network(*NETWORKS[name]())
    local(images)  # decides the lazy layer's size
    remote = copy.deepcopy(local).to(DEVICE)
    for model, device in ((local, "cpu"), (remote, DEVICE)):
        with no_fallback():
            model(images.to(device)).pow(2).mean().backward()
    assert_same_training(local, remote)


@pytest.mark.parametrize("is_training", [True, False])
def test_batch_norm_keeps_and_uses_its_running_statistics(is_training: bool) -> None:
    local = torch.nn.BatchNorm1d(6)
    local(torch.randn(50, 6) * 3 + 1)
    remote = copy.deepcopy(local).to(DEVICE)
    x = torch.randn(7, 6)
    for model, device in ((local, "cpu"), (remote, DEVICE)):
        with no_fallback():
            model.train(is_training)(x.to(device)).pow(2).sum().backward()
    assert_same_training(local, remote)


def classes(x: torch.Tensor, y: torch.Tensor, **options: Any) -> torch.Tensor:
    return F.cross_entropy(x, torch.arange(4, device=x.device), **options)


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": F.mse_loss,
    "mse of each": lambda x, y: F.mse_loss(x, y, reduction="none").sin().sum(),
    "l1": F.l1_loss,
    "smooth l1": lambda x, y: F.smooth_l1_loss(x, y, beta=0.7),
    "huber": lambda x, y: F.huber_loss(x, y, delta=0.5, reduction="sum"),
    "binary cross entropy": lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid()),
    "binary cross entropy with logits": lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid()),
    "cross entropy": classes,
    "cross entropy of each": lambda x, y: classes(x, y, reduction="none").cos().sum(),
    "cross entropy, smoothed": lambda x, y: classes(x, y, label_smoothing=0.1),
    "cross entropy, weighted": lambda x, y: classes(x, y, weight=y[0].abs().detach(), ignore_index=2),
    "cross entropy of probabilities": lambda x, y: F.cross_entropy(x, y.softmax(1)),
    "cross entropy of pixels": lambda x, y: F.cross_entropy(
        x.view(2, 4, 2, 2), torch.arange(8, device=x.device).view(2, 2, 2) % 4
    ),
    "rows": lambda x, y: F.mse_loss(x[1], y[:, 2:6].diagonal()[1]),
    "divergence": lambda x, y: F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean"),
    "cosine": lambda x, y: F.cosine_embedding_loss(x, y, torch.tensor([1, -1, 1, -1], device=x.device)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradients_are_those_of_the_local_cpu(name: str) -> None:
    values = [torch.randn(4, 8), torch.randn(4, 8)]
    results = []
    for device in ("cpu", DEVICE):
        leaves = [value.clone().to(device).requires_grad_() for value in values]
        with no_fallback():
            loss = LOSSES[name](*leaves)
            loss.backward()
        results.append([loss, *(leaf.grad for leaf in leaves)])
    for expected, actual in zip(*results, strict=True):
        assert (expected is None) == (actual is None)
        if expected is not None:
            assert_close(actual, expected)


def test_a_class_beyond_the_last_is_told_when_the_loss_is_read() -> None:
    loss = F.cross_entropy(torch.randn(2, 3, device=DEVICE), torch.tensor([0, 3], device=DEVICE))
    with pytest.raises(IndexError, match="Target 3 is out of bounds|an index is out of range"):
        loss.item()


def test_gradients_in_float64_are_right_by_definition() -> None:
    """Kernels for float32 only leave float64 to the client's CPU; the others compute with it."""
    x = torch.randn(3, 5, dtype=torch.float64, device=DEVICE, requires_grad=True)
    functions = (
        torch.tanh,
        F.gelu,
        F.silu,
        lambda v: v.softmax(1),
        lambda v: F.layer_norm(v, (5,)),
        lambda v: F.log_softmax(v, 0),
    )
    for function in functions:
        assert torch.autograd.gradcheck(function, (x,))


def test_autocast_computes_products_in_the_lower_dtype_and_keeps_the_weights_as_they_are() -> None:
    local = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.GELU(), torch.nn.Linear(16, 4))
    remote = copy.deepcopy(local).to(DEVICE)
    x = torch.randn(6, 8)
    for model, device in ((local, "cpu"), (remote, DEVICE)):
        with no_fallback(), torch.autocast(device, dtype=torch.bfloat16):
            y = model(x.to(device))
            assert y.dtype == torch.bfloat16
        with no_fallback():
            y.float().pow(2).mean().backward()
    for ours, theirs in zip(remote.parameters(), local.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None and ours.grad.dtype == torch.float32
        assert_close(ours.grad, theirs.grad, bound=2e-2)  # two digits are what bfloat16 has

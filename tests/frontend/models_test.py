"""Hugging Face models at width 64: the same outputs as on the local CPU, with no op on the client's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from parity import DEVICE, assert_close, no_fallback

IDS = torch.randint(3, 99, (2, 16), generator=torch.Generator().manual_seed(1))


def image(size: int) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2))


def gpt2() -> torch.nn.Module:
    return hf.GPT2LMHeadModel(
        hf.GPT2Config(
            n_embd=64, n_head=4, n_layer=2, vocab_size=100, n_positions=64, bos_token_id=1, eos_token_id=99, pad_token_id=99
        )
    )


def bert() -> torch.nn.Module:
    return hf.BertModel(
        hf.BertConfig(hidden_size=64, num_attention_heads=4, num_hidden_layers=2, intermediate_size=128, vocab_size=100)
    )


def vit() -> torch.nn.Module:
    return hf.ViTModel(
        hf.ViTConfig(
            hidden_size=64, num_attention_heads=4, num_hidden_layers=2, intermediate_size=128, image_size=32, patch_size=8
        )
    )


def resnet() -> torch.nn.Module:
    return hf.ResNetModel(hf.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64, 64], depths=[2, 2, 2, 2]))


def t5() -> torch.nn.Module:
    return hf.T5ForConditionalGeneration(
        hf.T5Config(
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            vocab_size=100,
            decoder_start_token_id=0,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


FORWARDS: dict[str, tuple[Callable[[], torch.nn.Module], Callable[[Any, str], torch.Tensor]]] = {
    "gpt2": (gpt2, lambda m, d: m(IDS.to(d)).logits),
    "bert": (bert, lambda m, d: m(IDS.to(d), attention_mask=(IDS > 20).long().to(d)).last_hidden_state),
    "vit": (vit, lambda m, d: m(image(32).to(d)).last_hidden_state),
    "resnet": (resnet, lambda m, d: m(image(64).to(d)).pooler_output),
    "t5": (t5, lambda m, d: m(input_ids=IDS.to(d), decoder_input_ids=IDS[:, :5].to(d)).logits),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_a_forward_gives_what_the_local_cpu_gives(name: str) -> None:
    make, forward = FORWARDS[name]
    model = make().eval()
    with torch.no_grad():
        expected = forward(model, "cpu")
        with no_fallback():
            model = model.to(DEVICE)
            for _ in range(2):
                assert_close(forward(model, DEVICE), expected)


def generate(model: Any, device: str, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        ids = IDS[:1].to(device)
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, **options).cpu()


@pytest.mark.parametrize("make", [gpt2, t5])
def test_greedy_generate_gives_the_same_tokens(make: Callable[[], torch.nn.Module]) -> None:
    model = make().eval()
    expected = generate(model, "cpu", do_sample=False)
    with no_fallback():
        assert torch.equal(generate(model.to(DEVICE), DEVICE, do_sample=False), expected)


def test_sampling_repeats_itself_under_a_seed() -> None:
    model = gpt2().eval().to(DEVICE)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(generate(model, DEVICE, do_sample=True, top_k=20))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_batch_with_padding_generates_as_on_the_cpu() -> None:
    model = gpt2().eval()
    mask = torch.ones(2, 16, dtype=torch.long)
    mask[1, :5] = 0
    with torch.no_grad():
        expected = model.generate(IDS, attention_mask=mask, max_new_tokens=6, do_sample=False)
        model = model.to(DEVICE)
        actual = model.generate(IDS.to(DEVICE), attention_mask=mask.to(DEVICE), max_new_tokens=6, do_sample=False)
    assert torch.equal(actual.cpu(), expected)

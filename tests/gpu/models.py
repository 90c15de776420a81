"""Models in plain PyTorch, built from a seed, so that a machine with torch and nothing else can run them.

``make(name)`` gives a model in evaluation mode; ``inputs(name, batch)`` what it takes. Decoders have ``step(ids, cache)``, whose cache grows with
every token; ``StaticDecoder`` is the same decoder with a cache of fixed size, which is what torch.compile and CUDA graphs need to be fast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

SHAPES = {  # layers, width, heads, key/value heads, vocabulary
    "gpt2": (12, 768, 12, 12, 50257),
    "gpt2-xl": (48, 1600, 25, 25, 50257),
    "llama-1b": (16, 2048, 32, 8, 128256),
    "bert": (12, 768, 12, 12, 30522),
    "vit": (12, 768, 12, 12, 0),
    "tiny-gpt2": (2, 64, 2, 2, 97),
    "tiny-llama": (2, 64, 4, 2, 97),
    "tiny-bert": (2, 64, 2, 2, 97),
}
POSITIONS = 1024


class Norm(nn.Module):
    """Root mean square, as Llama has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.float()
        return self.weight * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


class Block(nn.Module):
    def __init__(self, width: int, heads: int, shared: int, is_llama: bool) -> None:
        super().__init__()
        self.heads, self.shared, self.is_llama, self.size = heads, shared, is_llama, width // heads
        self.norm1, self.norm2 = (Norm(width), Norm(width)) if is_llama else (nn.LayerNorm(width), nn.LayerNorm(width))
        self.qkv = nn.Linear(width, width + 2 * shared * self.size, bias=not is_llama)
        self.out = nn.Linear(width, width, bias=not is_llama)
        self.up = nn.Linear(width, 4 * width, bias=not is_llama)
        self.gate = nn.Linear(width, 4 * width, bias=False) if is_llama else None
        self.down = nn.Linear(4 * width, width, bias=not is_llama)

    def project(self, x, angles):  # noqa: ANN001, ANN201
        b, t, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split([width, self.shared * self.size, self.shared * self.size], -1)
        q = q.view(b, t, self.heads, self.size).transpose(1, 2)
        k = k.view(b, t, self.shared, self.size).transpose(1, 2)
        v = v.view(b, t, self.shared, self.size).transpose(1, 2)
        return (rotate(q, *angles), rotate(k, *angles), v) if angles is not None else (q, k, v)

    def attend(self, x, q, k, v, **how):  # noqa: ANN001, ANN003, ANN201
        b, t, width = x.shape
        if self.shared != self.heads:
            k, v = (y.repeat_interleave(self.heads // self.shared, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, **how)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, width))
        h = self.norm2(x)
        up = self.up(h)
        return x + self.down(F.silu(self.gate(h)) * up if self.gate is not None else F.gelu(up))

    def forward(self, x, cache, is_causal, angles):  # noqa: ANN001, ANN201
        q, k, v = self.project(x, angles)
        if cache is not None:
            k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
        return self.attend(x, q, k, v, is_causal=is_causal and x.shape[1] > 1), (k, v)


class Transformer(nn.Module):
    """GPT-2, BERT, ViT and Llama shapes; an image is embedded by patches."""

    def __init__(self, name: str) -> None:
        super().__init__()
        layers, width, heads, shared, vocabulary = SHAPES[name]
        self.is_llama, self.is_causal = "llama" in name, "gpt2" in name or "llama" in name
        self.tokens = nn.Embedding(vocabulary, width) if vocabulary else None
        self.patches = None if vocabulary else nn.Conv2d(3, width, 16, 16)
        self.positions = None if self.is_llama else nn.Embedding(POSITIONS, width)
        self.blocks = nn.ModuleList(Block(width, heads, shared, self.is_llama) for _ in range(layers))
        self.norm = Norm(width) if self.is_llama else nn.LayerNorm(width)
        self.size = width // heads

    def embed(self, x: torch.Tensor, places: torch.Tensor | None = None, done: int = 0) -> tuple:
        h = self.tokens(x) if self.tokens is not None else self.patches(x).flatten(2).transpose(1, 2)
        if places is None:
            places = torch.arange(done, done + h.shape[1], device=h.device)
        if self.positions is not None:
            return h + self.positions(places), None
        turn = places[:, None] * (10000.0 ** (-torch.arange(0, self.size, 2, device=h.device) / self.size))
        turn = torch.cat((turn, turn), -1)
        return h, (turn.cos().to(h.dtype), turn.sin().to(h.dtype))

    def step(self, x: torch.Tensor, cache: list | None = None) -> tuple[torch.Tensor, list]:
        h, angles = self.embed(x, done=cache[0][0].shape[2] if cache else 0)
        kept = []
        for i, block in enumerate(self.blocks):
            h, pair = block(h, cache[i] if cache else None, self.is_causal, angles)
            kept.append(pair)
        h = self.norm(h)
        return (h[:, -1:] @ self.tokens.weight.T if self.is_causal else h), kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(x)[0]


class StaticDecoder(nn.Module):
    """One token with a cache of ``length`` places, of which those up to ``place`` count: sizes and addresses are the same for every token."""

    def __init__(self, model: Transformer, prefilled: list, length: int) -> None:
        super().__init__()
        self.model, self.length = model, length
        self.cache = []
        for pair in prefilled:
            places = [torch.zeros(*y.shape[:2], length, y.shape[3], dtype=y.dtype, device=y.device) for y in pair]
            for ours, theirs in zip(places, pair, strict=True):
                ours[:, :, : theirs.shape[2]] = theirs
                torch._dynamo.mark_static_address(ours)
            self.cache.append(places)

    def forward(self, ids: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        h, angles = self.model.embed(ids, place)
        mask = (torch.arange(self.length, device=h.device) <= place)[None, None, None]
        for block, (k, v) in zip(self.model.blocks, self.cache, strict=True):
            q, new_k, new_v = block.project(h, angles)
            k.index_copy_(2, place, new_k)
            v.index_copy_(2, place, new_v)
            h = block.attend(h, q, k, v, attn_mask=mask)
        return first_token(self.model.norm(h)[:, -1:] @ self.model.tokens.weight.T)


class Bottleneck(nn.Module):
    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o))
            for i, o, k, s in ((given, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1))
        )
        self.side = (
            nn.Sequential(nn.Conv2d(given, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
            if stride > 1 or given != 4 * width
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))) + self.side(x))


class ResNet(nn.Module):
    def __init__(self, counts: tuple[int, ...] = (3, 4, 6, 3), width: int = 64) -> None:
        super().__init__()
        layers, given = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], width
        for stage, count in enumerate(counts):
            for i in range(count):
                layers.append(Bottleneck(given, width << stage, 2 if stage and i == 0 else 1))
                given = 4 * (width << stage)
        self.body, self.head = nn.Sequential(*layers), nn.Linear(given, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


BLOCK = 1048573  # a prime, so that no two rows of a matrix that is filled with repetitions are equal


def fill(tensor: torch.Tensor, seed: int, scale: float, middle: float = 0.0) -> None:
    """Normal numbers, a block of them repeated: drawing a billion takes longer than what is measured with them."""
    block = torch.randn(min(BLOCK, tensor.numel()), generator=torch.Generator().manual_seed(seed)) * scale + middle
    flat, block = tensor.view(-1), block.to(tensor.dtype)
    for at in range(0, flat.numel(), block.numel()):
        part = flat[at : at + block.numel()]
        part.copy_(block[: part.numel()])


def make(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The same numbers on every machine. Wide enough that an untrained decoder does not repeat one token."""
    with torch.device("meta"):
        model = (ResNet((1, 1), 8) if "tiny" in name else ResNet()) if "resnet" in name else Transformer(name)
    model = model.to(dtype).to_empty(device="cpu").eval()
    with torch.no_grad():
        for seed, (called, p) in enumerate(model.named_parameters()):
            if p.dim() > 1:
                is_table = called.startswith(("tokens", "positions"))
                fill(p, seed, 0.05 if is_table else (1.4 if p.dim() == 2 else 1.0) * p[0].numel() ** -0.5)
            else:
                fill(p, seed, 0.02, 1.0 if called.endswith("weight") else 0.0)
        for called, buffer in model.named_buffers():
            buffer.fill_(1 if called.endswith("running_var") else 0)
    return model


def inputs(name: str, batch: int, tokens: int = 128) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    if "resnet" in name or name == "vit":
        side = 32 if "tiny" in name else 224
        return torch.randn(batch, 3, side, side, generator=random)
    return torch.randint(0, SHAPES[name][4], (batch, tokens), generator=random)


def first_token(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1].argmax(-1, keepdim=True)

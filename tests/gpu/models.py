"""Models in plain PyTorch, built from a seed, so that a machine with torch and nothing else can run them.

``make(name)`` gives a model in evaluation mode; ``inputs(name, batch)`` what it takes. Decoders have ``step(ids, cache)``.
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

    def forward(self, x, cache, is_causal, angles):  # noqa: ANN001, ANN201
        b, t, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split([width, self.shared * self.size, self.shared * self.size], -1)
        q = q.view(b, t, self.heads, self.size).transpose(1, 2)
        k = k.view(b, t, self.shared, self.size).transpose(1, 2)
        v = v.view(b, t, self.shared, self.size).transpose(1, 2)
        if angles is not None:
            q, k = rotate(q, *angles), rotate(k, *angles)
        if cache is not None:
            k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
        kept = (k, v)
        if self.shared != self.heads:
            k, v = (y.repeat_interleave(self.heads // self.shared, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal and t > 1)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, width))
        h = self.norm2(x)
        up = self.up(h)
        return x + self.down(F.silu(self.gate(h)) * up if self.gate is not None else F.gelu(up)), kept


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

    def step(self, x: torch.Tensor, cache: list | None = None) -> tuple[torch.Tensor, list]:
        done = cache[0][0].shape[2] if cache else 0
        h = self.tokens(x) if self.tokens is not None else self.patches(x).flatten(2).transpose(1, 2)
        places = torch.arange(done, done + h.shape[1], device=h.device)
        angles = None
        if self.positions is not None:
            h = h + self.positions(places)
        else:
            turn = places[:, None] * (10000.0 ** (-torch.arange(0, self.size, 2, device=h.device) / self.size))
            turn = torch.cat((turn, turn), -1)
            angles = turn.cos().to(h.dtype), turn.sin().to(h.dtype)
        kept = []
        for i, block in enumerate(self.blocks):
            h, pair = block(h, cache[i] if cache else None, self.is_causal, angles)
            kept.append(pair)
        h = self.norm(h)
        return (h[:, -1:] @ self.tokens.weight.T if self.is_causal else h), kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(x)[0]


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


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    if "resnet" in name:
        return (ResNet((1, 1), 8) if "tiny" in name else ResNet()).eval()
    model = Transformer(name).eval()
    with torch.no_grad():  # wider than the default, so that an untrained decoder does not repeat one token
        for p in model.parameters():
            if p.dim() == 2:
                p.normal_(std=0.05)
    return model


def inputs(name: str, batch: int, tokens: int = 128) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    if "resnet" in name or name == "vit":
        side = 32 if "tiny" in name else 224
        return torch.randn(batch, 3, side, side, generator=random)
    return torch.randint(0, SHAPES[name][4], (batch, tokens), generator=random)


def first_token(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1].argmax(-1, keepdim=True)

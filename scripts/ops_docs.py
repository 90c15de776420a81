#!/usr/bin/env python3
"""Writes docs/ops.md from core/ops/ops.def. `ops_docs.py --check` only says whether it is up to date."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROW = re.compile(r'^OP\(\s*(\d+),\s*(\w+),\s*"([^"]*)",\s*"([^"]*)",\s*(\d+),\s*(\w+),\s*(\w+),\s*(\w+),\s*([^)]*)\)$')
HEAD = """# Ops

Every op that a plan can hold, from `core/ops/ops.def` (this page is generated: `scripts/ops_docs.py`). The signature language is
explained in `core/ops/op.h`: `T` tensor, `i b f n e` integer, bool, float, number, enumeration; `[]` a list, `?` optional, `!` part of the
plan's fingerprint (the others are bindings), `_` an ATen argument that is not carried.

`det`: the same call gives the same bits on every kernel of a numerics class. `view`: metadata only.
`random`: Philox with seed and offset. `creates`: needs no tensor. `manual`: the frontend lowers it by hand.
"""


def page() -> str:
    out = [HEAD]
    for line in (ROOT / "core/ops/ops.def").read_text().splitlines():
        match = ROW.match(line)
        if line.startswith("OP(") and not match:
            raise SystemExit(f"ops.def has a row that this script cannot read: {line}")
        if match:
            number, name, aten, signature, outputs, shape, dtype, cost, flags = match.groups()
            names = {"OP_IS_VIEW": "view"}
            words = " ".join(names.get(f.strip(), f.strip().removeprefix("OP_").lower()) for f in flags.split("|"))
            aten = f"`{aten}`" if aten else ""
            out.append(f"| {number} | {name} | {aten} | `{signature}` | {outputs} | {shape} | {dtype} | {cost} | {words} |")
        elif line.startswith("// ") and len(out) > 1 or line.startswith("// pointwise, two"):
            out.append(f"\n## {line[3:].capitalize()}\n")
            out.append("| number | op | ATen | signature | outputs | shape | dtype | cost | flags |")
            out.append("|--:|---|---|---|--:|---|---|---|---|")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    target = ROOT / "docs/ops.md"
    if "--check" in sys.argv:
        sys.exit(
            0 if target.exists() and target.read_text() == page() else f"{target} is not up to date: run scripts/ops_docs.py"
        )
    target.write_text(page())

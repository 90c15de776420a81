"""The tables of scripts/bench-gpu, in Markdown."""

from __future__ import annotations

KERNELS_SHOWN = 12


def figure(told: dict | None) -> str:
    return f"{told['median_ms']:.2f} ({told['p95_ms']:.2f})" if told else "-"


def markdown(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(columns), ["---"] * len(columns), *rows])


def roofline(told: dict) -> str:
    if not told:
        return ""
    return (
        f"this GPU, measured through torch: reads {told['read_bytes_per_s'] / 1e9:.0f} GB/s (a sum over 4 GiB), copies "
        f"{told['copy_bytes_per_s'] / 1e9:.0f} GB/s (bytes read and written), fp32 products {told['float32_flops'] / 1e12:.0f} Tflop/s (TF32 off), "
        f"bf16 {told['bfloat16_flops'] / 1e12:.0f}"
    )


COLUMNS = (
    "case",
    "remote ms",
    "eager ms",
    "compile ms",
    "reduce-overhead ms",
    "remote / eager",
    "of what can be read",
    "parity with eager",
)


def head() -> str:
    return markdown(COLUMNS, [])


def row(case, limits: dict, parameter_bytes: int) -> str:  # noqa: ANN001
    remote, eager = case.told.get("remote"), case.told.get("eager")
    ratio = f"{remote['median_ms'] / eager['median_ms']:.2f}" if remote and eager else "-"
    share = "-"
    if remote and parameter_bytes and limits:
        share = f"{100 * parameter_bytes / limits['read_bytes_per_s'] / (remote['median_ms'] / 1000):.0f} %"
    ways = [figure(case.told.get(way)) for way in ("remote", "eager", "default", "reduce-overhead")]
    return "| " + " | ".join([case.name, *ways, ratio, share, case.parity]) + " |"


def whole(cases: list, limits: dict, parameter_bytes) -> str:  # noqa: ANN001
    lines = [head(), *(row(case, limits, parameter_bytes(case)) for case in cases)]
    return (
        "\n".join(lines)
        + "\n\nMedian (p95) until the value is in Python; the same model, numbers and inputs; TF32 off. Remote and eager decode with a cache that "
        "grows, torch.compile with one of fixed size. What can be read: the parameters' bytes over the bandwidth of reading."
    )


STEP_COLUMNS = (
    "case", "step", "Python", "record", "flush", "wait", "of it: way and lowering", "device's thread", "GPU", "write programs", "launch",
    "graphs", "captures", "launches", "bytes to / from the GPU", "bytes out / in", "ops", "round trips",
)  # fmt: skip


def steps(cases: list) -> str:
    """Where a step's time goes: milliseconds, counts and bytes by step."""
    rows = []
    for case in cases:
        told = case.told.get("remote")
        if not told:
            continue
        client, device = told["client"], told["device"]
        record, flush, wait = (client[name] / 1e6 for name in ("record_ns", "flush_ns", "wait_ns"))
        lists, gpu, program, launch = (device[name] / 1e6 for name in ("list_ns", "elapsed_ns", "program_ns", "launch_ns"))
        times = [
            told["median_ms"],
            max(0.0, told["median_ms"] - record - flush - wait),
            record,
            flush,
            wait,
            max(0.0, wait - lists),
            lists,
            gpu,
        ]
        rows.append(
            [case.name, *(f"{ms:.3f}" for ms in [*times, program, launch])]
            + [f"{device[name]:.2f}" for name in ("graph_launches", "graph_captures", "launches")]
            + [f"{device['bytes_in']:.0f} / {device['bytes_out']:.0f}", f"{client['bytes_out']:.0f} / {client['bytes_in']:.0f}"]
            + [f"{client['ops_submitted']:.0f}", f"{client['round_trips']:.2f}"]
        )
    return (
        "Where a step's time goes, milliseconds a step (Python: the rest, the program and PyTorch's dispatcher)\n\n"
        + markdown(STEP_COLUMNS, rows)
    )


def kernels(case) -> str:  # noqa: ANN001
    """The GPU's time by op and kernel, the longest first; every launch timed on its own."""
    told = case.told["launches"]
    found = sorted(told["kernels"], key=lambda row: -row["ns"])
    total = sum(row["ns"] for row in found) or 1
    rows = []
    for row in found[:KERNELS_SHOWN]:
        rate = f"{row['bytes'] / row['ns']:.0f}" if row["ns"] and row["bytes"] else "-"
        each = row["ns"] / row["count"] / 1000
        size = f"{row['bytes'] / row['count'] / 1024:.0f}"
        rows.append(
            [
                row["op"],
                row["kernel"],
                f"{row['count']:.1f}",
                f"{row['ns'] / 1000:.1f}",
                f"{each:.2f}",
                size,
                rate,
                f"{100 * row['ns'] / total:.0f} %",
            ]
        )
    launched = sum(row["count"] for row in found)
    return (
        f"\n{case.name}: {total / 1e6:.3f} ms in {launched:.0f} launches a step, of {told['device']['elapsed_ns'] / 1e6:.3f} ms on the GPU launched one by one "
        f"({told['device']['unmeasured']:.0f} not timed)\n\n"
        + markdown(("op", "kernel", "launches", "us", "us each", "KiB each", "GB/s", "share"), rows)
    )

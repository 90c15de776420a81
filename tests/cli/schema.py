"""Messages whose form is right and whose contents are anything: drawn from core/wire/messages.def, so that they get past the codec."""

from __future__ import annotations

import random
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from frames import frame, text, var, zig

TABLE = Path(__file__).resolve().parents[2] / "core" / "wire" / "messages.def"
TOKEN = re.compile(r"\b(RECORD_END|RECORD|MESSAGE|END|U8|U32|U64|I64|F64|HASH|BOOL|TEXT|BYTES|LIST)\(([^)]*)\)")

EDGES = [0, 1, 2, 7, 8, 63, 64, 127, 128, 255, 256, 4095, 4096, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
WIDE_EDGES = [*EDGES, 1 << 32, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


@dataclass
class Field:
    kind: str
    name: str
    most: int = 0
    record: str = ""


def read_table() -> tuple[dict[str, list[Field]], dict[str, tuple[int, list[Field]]]]:
    """The records, and the messages with their numbers."""
    records: dict[str, list[Field]] = {}
    messages: dict[str, tuple[int, list[Field]]] = {}
    fields: list[Field] = []
    source = re.sub(r"//.*", "", TABLE.read_text())
    for kind, inside in TOKEN.findall(source):
        words = [word.strip() for word in inside.split(",")]
        if kind == "RECORD":
            fields = records.setdefault(words[0], [])
        elif kind == "MESSAGE":
            fields = []
            messages[words[1]] = (int(words[0]), fields)
        elif kind == "LIST":
            fields.append(Field(kind, words[1], int(words[2]), words[0]))
        elif kind in ("TEXT", "BYTES"):
            fields.append(Field(kind, words[0], int(words[1])))
        elif kind not in ("END", "RECORD_END"):
            fields.append(Field(kind, words[0]))
    return records, messages


RECORDS, MESSAGES = read_table()


def number(prng: random.Random, edges: list[int], bits: int) -> int:
    draw = prng.random()
    if draw < 0.5:
        return prng.randrange(6)
    return prng.choice(edges) if draw < 0.85 else prng.getrandbits(bits)


def value(field: Field, prng: random.Random, depth: int = 0) -> bytes:
    """One field's bytes: anything that its kind allows."""
    match field.kind:
        case "U8":
            return bytes([prng.choice([0, 1, 2, 3, 4, 5, 8, 9, 200, 255])])
        case "BOOL":
            return bytes([prng.randrange(2)])
        case "U32":
            return var(number(prng, EDGES, 32))
        case "U64":
            return var(number(prng, WIDE_EDGES, 64))
        case "I64":
            return zig(number(prng, [edge for edge in WIDE_EDGES if edge < 1 << 63], 62) * prng.choice([1, -1]))
        case "F64":
            return struct.pack("<d", prng.choice([0.0, -1.0, float("nan"), float("inf"), prng.random()]))
        case "HASH":
            return prng.choice([bytes(16), prng.randbytes(16)])
        case "TEXT":
            return text(
                "".join(prng.choice("ab/:.%\n\u00e9") for _ in range(prng.choice([0, 1, 5, min(30, field.most // 2 - 1)])))
            )
        case "BYTES":
            length = min(field.most, prng.choice([0, 0, 1, 2, 8, 16, 40, 200]))
            return var(length) + prng.randbytes(length)
        case "LIST":
            count = min(field.most, prng.choice([0, 1, 1, 2, 5])) if depth < 2 else 0
            return var(count) + b"".join(record(field.record, prng, depth + 1) for _ in range(count))
    raise AssertionError(field.kind)


def record(name: str, prng: random.Random, depth: int = 0) -> bytes:
    return b"".join(value(field, prng, depth) for field in RECORDS[name])


def body(name: str, prng: random.Random, /, **fixed: bytes) -> bytes:
    """A message's body; `fixed` holds the encoded bytes of fields that are not to be left to chance."""
    return b"".join(fixed[field.name] if field.name in fixed else value(field, prng) for field in MESSAGES[name][1])


def message(name: str, prng: random.Random, bulk: bytes = b"", /, **fixed: bytes) -> bytes:
    return frame(MESSAGES[name][0], body(name, prng, **fixed), bulk)

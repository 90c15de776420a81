"""The wire's frames, written down a second time: what a peer sends, right or wrong in any field. The first is core/wire."""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from dataclasses import dataclass, field

MAGIC = b"DJN1"
VERSION = 3
HEADER_BYTES = 40
CHECKED_BYTES = 24  # of the header, by body_check

HELLO, HELLO_OK, FAILED, PING, PONG = 1, 2, 3, 4, 5
JOIN, JOINED, HEARTBEAT, JOURNAL = 20, 21, 22, 27
LEAF_DATA = 42
SESSION_OPEN, SESSION_GRANT = 60, 61
ASK, TOLD = 80, 81
ATTACH, PLAN, EXECUTE = 100, 102, 103

CLIENT, WORKER, HEAD, ADMIN = 1, 2, 3, 4

# core/base/errors.def, as far as frames can cause them.
FRAME_TRUNCATED, FRAME_OVERSIZED, FRAME_CORRUPT, FRAME_UNKNOWN, BAD_VERSION, MALFORMED, UNEXPECTED = 30, 31, 32, 33, 34, 35, 36
SESSION_UNKNOWN, TOKEN = 43, 44

_xxhash = ctypes.CDLL("libxxhash.so.0")
_xxhash.XXH3_64bits.restype = ctypes.c_uint64
_xxhash.XXH3_64bits.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
_xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
_xxhash.XXH3_64bits_withSeed.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)


def check_of(front: bytes, body: bytes) -> int:
    """XXH3 of the body, seeded with XXH3 of the header's first 24 bytes."""
    return _xxhash.XXH3_64bits_withSeed(body, len(body), _xxhash.XXH3_64bits(front, len(front)))


def frame(
    message: int,
    body: bytes = b"",
    bulk: bytes = b"",
    *,
    magic: bytes = MAGIC,
    version: int = VERSION,
    number: int = 0,
    body_bytes: int | None = None,
    bulk_bytes: int | None = None,
    check_xor: int = 0,
    bulk_check_xor: int = 0,
) -> bytes:
    """One frame. The keywords make it wrong in one place; the check is right for what is sent unless it is asked not to be."""
    front = magic + struct.pack(
        "<HHIIQ",
        version,
        message,
        len(body) if body_bytes is None else body_bytes,
        number,
        len(bulk) if bulk_bytes is None else bulk_bytes,
    )
    bulk_check = _xxhash.XXH3_64bits(bulk, len(bulk)) if bulk else 0
    return front + struct.pack("<QQ", check_of(front, body) ^ check_xor, bulk_check ^ bulk_check_xor) + body + bulk


def renumbered(data: bytes, number: int) -> tuple[bytes, int]:
    """The frames in `data` with the numbers that they have on a link where `number` is next, and the number after them.

    A frame that has a number already, or is of another protocol or version, keeps it, and everything behind it is left as it is. A frame that is
    wrong elsewhere stays as wrong as it was.
    """
    out, at = b"", 0
    while at + HEADER_BYTES <= len(data):
        magic, version, message, body_bytes, given, bulk_bytes, check, bulk_check = struct.unpack_from("<4sHHIIQQQ", data, at)
        if magic != MAGIC or version != VERSION or given != 0:
            break
        front, whole = data[at : at + CHECKED_BYTES], HEADER_BYTES + body_bytes + bulk_bytes
        body = data[at + HEADER_BYTES : at + HEADER_BYTES + body_bytes]
        new = magic + struct.pack("<HHIIQ", version, message, body_bytes, number, bulk_bytes)
        wrong = check ^ check_of(front, body)
        out += new + struct.pack("<QQ", check_of(new, body) ^ wrong, bulk_check) + data[at + HEADER_BYTES : at + whole]
        number += 1
        at += whole
    return out + data[at:], number


def var(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str) -> bytes:
    encoded = value.encode()
    return var(len(encoded)) + encoded


def zig(value: int) -> bytes:
    return var((value << 1) ^ (value >> 63) if value < 0 else value << 1)


def token_bytes(token: str) -> bytes:
    """32 hexadecimal digits, as in a token file: two numbers of 8 bytes, little-endian each."""
    return struct.pack("<QQ", int(token[:16], 16), int(token[16:], 16))


def hello(token: str, role: int, version: int = VERSION, name: str = "test") -> bytes:
    return frame(HELLO, var(version) + bytes([role]) + token_bytes(token) + text(name) + var(1) + var(0) + text("test"))


def ask(verb: str, argument: str = "", request: int = 1) -> bytes:
    return frame(ASK, var(request) + text(verb) + text(argument) + var(0))


def session_open(request: int = 1) -> bytes:
    return frame(
        SESSION_OPEN,
        var(request)
        + text("tenant")
        + text("test")
        + var(7)
        + zig(-1)
        + var(0)
        + var(0)
        + var(0)
        + text("")
        + b"\0"
        + var(0)
        + b"\0",
    )


def connect_unix(path: str, timeout: float) -> socket.socket:
    """A full backlog is an error here and a wait on TCP: so wait."""
    deadline = time.monotonic() + timeout
    while True:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(timeout)
        try:
            made.connect(path)
            return made
        except BlockingIOError:
            made.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


@dataclass
class Said:
    """A message that came back."""

    message: int
    body: bytes = field(repr=False)

    def failed(self) -> tuple[int, int, str]:
        """Request, error number and text of a FAILED."""
        assert self.message == FAILED, self
        at, numbers = 0, []
        for _ in range(3):
            value, shift = 0, 0
            while True:
                byte = self.body[at]
                at += 1
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            numbers.append(value)
        return numbers[0], numbers[1], self.body[at : at + numbers[2]].decode()


class Peer:
    """A connection that says what it likes. Every wait ends after `timeout` seconds."""

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        if address.startswith("unix://"):
            self.socket = connect_unix(address.removeprefix("unix://"), timeout)
        else:
            host, port = address.removeprefix("tcp://").rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)), timeout)
        self.buffer = b""
        self.said = self.heard = 0  # frames

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, data: bytes) -> None:
        """Sends whole frames, numbered; a connection that the other side has ended already is no error here."""
        data, self.said = renumbered(data, self.said)
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def finish(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _fill(self, wanted: int) -> bool:
        while len(self.buffer) < wanted:
            try:
                chunk = self.socket.recv(65536)
            except ConnectionResetError:
                return False
            if not chunk:
                return False
            self.buffer += chunk
        return True

    def hear(self) -> Said | None:
        """The next message; None at the end of the connection."""
        if not self._fill(HEADER_BYTES):
            return None
        magic, version, message, body_bytes, number, bulk_bytes, check, _ = struct.unpack(
            "<4sHHIIQQQ", self.buffer[:HEADER_BYTES]
        )
        assert (magic, version, number) == (MAGIC, VERSION, self.heard)
        self.heard += 1
        whole = HEADER_BYTES + body_bytes + bulk_bytes
        assert self._fill(whole), "a frame was cut short"
        body = self.buffer[HEADER_BYTES : HEADER_BYTES + body_bytes]
        assert check == check_of(self.buffer[:CHECKED_BYTES], body)
        self.buffer = self.buffer[whole:]
        return Said(message, body)

    def hear_all(self) -> list[Said]:
        """Everything until the other side ends the connection."""
        heard = []
        while (said := self.hear()) is not None:
            heard.append(said)
        return heard

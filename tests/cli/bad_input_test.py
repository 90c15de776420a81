"""Bytes that make no sense, on every door that is open: the head's, and a worker's over TCP and unix sockets. The process says what is wrong
where the protocol lets it, ends that connection and no other, goes on answering, and gives the memory back."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import frames
import pytest
from frames import Peer, frame
from live import DONE, Pool, cpu_seconds, is_alive, rss_kib, wait_until

DOORS = ["head", "worker over tcp", "worker over unix"]
RSS_GROWTH_KIB = 8 << 10  # of a process that has dealt with all of this
CONNECTIONS = 2000
RANDOM_ROUNDS = 150
HELD_OPEN = 64
FEW_DESCRIPTORS = 64


@dataclass
class Door:
    """Where to knock, whose process it is, and how to see that it is well."""

    pool: Pool
    address: str
    pid: int

    def is_well(self) -> None:
        assert is_alive(self.pid), self.pool.processes[-1].text()
        status = self.pool.status()
        assert [worker["name"] for worker in status["workers"]] == ["guarded"]
        with self.greeted() as peer:
            peer.say(frame(frames.PING, frames.var(5)))
            assert peer.hear().message == frames.PONG

    def greeted(self) -> Peer:
        peer = Peer(self.address)
        peer.say(frames.hello(self.pool.token(), frames.CLIENT))
        assert peer.hear().message == frames.HELLO_OK
        return peer

    def errors(self, data: bytes, *, greets: bool = False) -> list[int]:
        """Says `data` and nothing more; the error numbers of what comes back until the other side ends the connection."""
        with self.greeted() if greets else Peer(self.address) as peer:
            peer.say(data)
            return [said.failed()[1] for said in peer.hear_all()]


def open_door(pool: Pool, which: str) -> Door:
    head, worker = pool.start_head(), pool.start_worker("guarded")
    if which == "head":
        return Door(pool, pool.address, head.pid)
    addresses = pool.worker("guarded")
    return Door(pool, addresses["address"] if which.endswith("tcp") else addresses["address_unix"], worker.pid)


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, pool: Pool) -> Iterator[Door]:
    opened = open_door(pool, request.param)
    yield opened
    opened.is_well()
    assert pool.run("stop").returncode == DONE
    assert [process.wait() for process in pool.processes] == [DONE, DONE]


def ping() -> bytes:
    return frames.var(1)


REFUSED = [
    ("another magic", frame(frames.PING, ping(), magic=b"HTTP"), frames.FRAME_CORRUPT),
    ("version 0", frame(frames.PING, ping(), version=0), frames.BAD_VERSION),
    ("a later version", frame(frames.PING, ping(), version=frames.VERSION + 1), frames.BAD_VERSION),
    ("message 0", frame(0), frames.FRAME_UNKNOWN),
    ("an unknown message", frame(999), frames.FRAME_UNKNOWN),
    ("the highest message", frame(0xFFFF), frames.FRAME_UNKNOWN),
    ("a body over its kind's bound", frame(frames.PING, b"", body_bytes=1 << 20), frames.FRAME_OVERSIZED),
    ("a body of 4 GiB", frame(frames.EXECUTE, b"", body_bytes=0xFFFFFFFF), frames.FRAME_OVERSIZED),
    ("a bulk where there is none", frame(frames.PING, ping(), bulk_bytes=1), frames.FRAME_OVERSIZED),
    ("a bulk of 2^64 - 1 bytes", frame(frames.LEAF_DATA, b"", bulk_bytes=(1 << 64) - 1), frames.FRAME_OVERSIZED),
    ("a number out of turn", frame(frames.PING, ping(), number=7), frames.FRAME_CORRUPT),
    ("a wrong checksum", frame(frames.PING, ping(), check_xor=1), frames.FRAME_CORRUPT),
    ("a message before HELLO", frame(frames.PING, ping()), frames.UNEXPECTED),
    ("an empty HELLO", frame(frames.HELLO), frames.FRAME_TRUNCATED),
    ("words of another protocol", b"GET / HTTP/1.1\r\nHost: djinn\r\nAccept: */*\r\n\r\n", frames.FRAME_CORRUPT),
]


@pytest.mark.parametrize("which", DOORS)
def test_what_makes_no_sense_is_refused_by_name(pool: Pool, which: str) -> None:
    door = open_door(pool, which)
    for what, data, error in REFUSED:
        assert door.errors(data) == [error], what
    door.is_well()


GREETED_AND_REFUSED = [
    ("HELLO twice to nobody's use", frame(frames.HELLO), frames.FRAME_TRUNCATED),
    ("a number over 64 bits", frame(frames.PING, b"\xff" * 9 + b"\x7f"), frames.MALFORMED),
    ("a number that never ends", frame(frames.PING, b"\xff" * 9), frames.FRAME_TRUNCATED),
    ("bytes behind the last field", frame(frames.PING, ping() + b"\0"), frames.MALFORMED),
    ("a wrong checksum", frame(frames.PING, ping(), check_xor=1 << 63), frames.FRAME_CORRUPT),
]


def test_what_a_greeted_peer_may_not_say_is_refused_by_name(door: Door) -> None:
    for what, data, error in GREETED_AND_REFUSED:
        assert door.errors(data, greets=True) == [error], what


def test_a_message_of_somebody_else_is_refused(door: Door) -> None:
    for message in (frames.JOINED, frames.TOLD, frames.HELLO_OK, frames.JOIN, frames.HEARTBEAT):
        for error in door.errors(frame(message, frames.var(1) * 4), greets=True):
            assert error in (frames.UNEXPECTED, frames.SESSION_UNKNOWN), message


def test_the_wrong_token_version_and_role_are_told_apart(door: Door) -> None:
    right, wrong = door.pool.token(), "f" * 32
    cases = [
        (frames.hello(wrong, frames.CLIENT), frames.TOKEN, "DJINN_TOKEN"),
        (frames.hello(right, frames.CLIENT, version=9), frames.BAD_VERSION, "version 9"),
        (frames.hello(right, 77), frames.MALFORMED, ""),
    ]
    for data, error, word in cases:
        with Peer(door.address) as peer:
            peer.say(data)
            _, number, text = peer.hear().failed()
            assert (number, word in text) == (error, True), text
            assert peer.hear() is None


@pytest.mark.parametrize("cut", [1, 4, 20, 39, 40, 41, 60])
def test_a_frame_that_is_cut_short_ends_quietly(door: Door, cut: int) -> None:
    whole = frames.hello(door.pool.token(), frames.CLIENT)
    with Peer(door.address) as peer:
        peer.say(whole[:cut])
        peer.finish()
        assert peer.hear_all() == []


def test_a_stalled_body_holds_up_nobody_else(door: Door) -> None:
    stalled = []
    for _ in range(HELD_OPEN):
        peer = door.greeted()
        peer.say(frame(frames.PING, b"", body_bytes=9))
        stalled.append(peer)
    door.is_well()
    for peer in stalled:
        peer.socket.close()


def test_promised_bytes_cost_nothing_before_they_come(door: Door) -> None:
    """A header may promise megabytes; what is reserved for a stranger who never sends them must not add up."""
    before, held = rss_kib(door.pid), []
    for _ in range(HELD_OPEN):
        peer = Peer(door.address)
        peer.say(frame(frames.EXECUTE, b"", body_bytes=8 << 20))
        held.append(peer)
    door.is_well()
    assert rss_kib(door.pid) - before < HELD_OPEN * 1024, "memory is touched before bytes come"
    for peer in held:
        peer.socket.close()
    wait_until(lambda: rss_kib(door.pid) - before < RSS_GROWTH_KIB, 5, "the memory comes back")


def mutations(whole: bytes, prng: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(prng.randint(1, 4)):
        data[prng.randrange(len(data))] ^= 1 << prng.randrange(8)
    return bytes(data)


def random_talk(token: str, prng: random.Random) -> bytes:
    """Noise, frames with flipped bits, or true frames (their checksums hold) with random contents, with and without a greeting."""
    numbers = [2, 3, 4, 20, 22, 24, 27, 31, 33, 40, 42, 44, 60, 62, 63, 80, 100, 102, 103, 106, 108, 109, 110]
    kind = prng.randrange(3)
    if kind == 0:
        return prng.randbytes(prng.randint(1, 400))
    if kind == 1:
        return mutations(frames.hello(token, frames.CLIENT) + frame(frames.PING, ping()), prng)
    talk = frames.hello(token, prng.choice([frames.CLIENT, frames.WORKER, frames.ADMIN]))
    for _ in range(prng.randint(1, 6)):
        talk += frame(prng.choice(numbers), prng.randbytes(prng.randint(0, 120)))
    return talk


def test_random_talk_is_survived(door: Door) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    prng, token = random.Random(seed), door.pool.token()

    def round_of_talk() -> None:
        for _ in range(RANDOM_ROUNDS):
            with Peer(door.address) as peer:
                peer.say(random_talk(token, prng))
                peer.finish()
                if prng.random() < 0.7:
                    peer.hear_all()

    round_of_talk()
    before = rss_kib(door.pid)
    round_of_talk()
    assert is_alive(door.pid), f"seed {seed}"
    wait_until(lambda: rss_kib(door.pid) - before < RSS_GROWTH_KIB, 5, f"the memory comes back, seed {seed}")


def test_thousands_of_connections_that_come_and_go_leave_nothing(door: Door) -> None:
    def knock(times: int, says: Callable[[Peer], None]) -> None:
        for _ in range(times):
            with Peer(door.address) as peer:
                says(peer)

    def say_and_hear(peer: Peer) -> None:
        peer.say(frame(frames.PING, ping()))
        peer.hear_all()

    knock(100, lambda peer: None)
    before = rss_kib(door.pid)
    knock(500, lambda peer: None)
    knock(500, lambda peer: peer.say(frames.MAGIC))
    knock(CONNECTIONS, say_and_hear)
    door.is_well()
    wait_until(lambda: rss_kib(door.pid) - before < RSS_GROWTH_KIB, 5, "the memory comes back")


def test_many_connections_at_once_are_served_or_turned_away(door: Door) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(1000, soft - 200)
    held = [Peer(door.address) for _ in range(wanted)]
    try:
        door.is_well()
    finally:
        for peer in held:
            peer.socket.close()


@pytest.mark.parametrize("which", ["head", "worker"])
def test_a_process_that_runs_out_of_descriptors_recovers(pool: Pool, which: str) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, FEW_DESCRIPTORS))

    limit = {"preexec_fn": few}
    process = pool.start_head(**(limit if which == "head" else {}))
    address = pool.address
    if which == "worker":
        process = pool.start_worker("guarded", **limit)
        address = pool.worker("guarded")["address"]
    held = [Peer(address) for _ in range(FEW_DESCRIPTORS * 2)]
    time.sleep(0.2)
    begun, spent = time.monotonic(), cpu_seconds(process.pid)
    time.sleep(1)
    share = (cpu_seconds(process.pid) - spent) / (time.monotonic() - begun)
    assert process.popen.poll() is None, process.text()
    assert len(process.text()) < 1 << 20, "it fills its log"
    for peer in held:
        peer.socket.close()
    wait_until(lambda: pool.run("status").returncode == DONE, 20, "the head answers again")
    with Peer(address) as peer:
        peer.say(frames.hello(pool.token(), frames.CLIENT))
        assert peer.hear().message == frames.HELLO_OK
    assert share < 0.5, f"{share:.0%} of a core spent on connections that cannot be taken"

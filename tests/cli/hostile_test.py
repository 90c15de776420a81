"""Peers that know the protocol and the token and lie in everything else: clients in the middle of a session with a worker, clients and workers
of the head. Messages have the right form (schema.py), so they reach what thinks about them."""

from __future__ import annotations

import random
import struct
import subprocess
from collections import Counter

import frames
import pytest
import schema
from frames import Peer, Said, token_bytes, var
from live import DJINN, DONE, Pool, is_alive, rss_kib, wait_until

HELLO = DJINN.parents[1] / "examples" / "hello"
NAMES = {number: name for name, (number, _) in schema.MESSAGES.items()}
LAST_PING = 1 << 60
ROUNDS = 150
TALK_MAX = 12
RSS_GROWTH_KIB = 16 << 10

TO_WORKER = [
    "PLAN",
    "EXECUTE",
    "EXECUTE",
    "EXECUTE",
    "FETCH",
    "RELEASE",
    "IMPORT",
    "LEAF_OFFER",
    "LEAF_DATA",
    "LEAF_GET",
    "ATTACH",
    "PING",
]
OF_WORKER = ["PEER", "LEAF_GET", "FETCH", "LEAF_OFFER", "LEAF_DATA", "LEAF_OK", "LEAF_NEED", "FAILED", "VALUE"]
OF_CLIENT = [
    "SESSION_OPEN",
    "GRANT_ASK",
    "SESSION_CLOSE",
    "JOURNAL",
    "LOCATE",
    "LEAF_GET",
    "LEAF_OFFER",
    "LEAF_DATA",
    "ASK",
    "PING",
]
OF_JOINED = [
    "HEARTBEAT",
    "ADMITTED",
    "JOURNAL",
    "LOCATE",
    "HOLDS",
    "LEAF_OFFER",
    "LEAF_DATA",
    "LEAF_OK",
    "LEAF_GET",
    "PING",
    "JOIN",
]
STREAM = 1


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def var(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def bytes(self, count: int | None = None) -> bytes:
        count = self.var() if count is None else count
        self.at += count
        return self.data[self.at - count : self.at]


class Grant:
    """Session, epoch and secret of a SESSION_GRANT."""

    def __init__(self, said: Said) -> None:
        assert said.message == frames.SESSION_GRANT, said.failed()
        reader = Reader(said.body)
        _, self.session, self.epoch, _, _, count = (reader.var() for _ in range(6))
        assert count == 1
        reader.var(), reader.var()  # device, worker
        for _ in range(4):  # name, addresses, host
            reader.bytes()
        reader.var()  # incarnation
        self.secret = reader.bytes(16)

    def attach(self) -> bytes:
        return frames.frame(frames.ATTACH, var(self.session) + var(self.epoch) + self.secret + var(STREAM))


class Liar:
    """One seeded life of lies to one pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.token = pool, pool.token()
        self.seed = random.SystemRandom().randrange(1 << 32)
        self.prng = random.Random(self.seed)
        self.plan: tuple[bytes, bytes] | None = None
        self.heard: Counter[str] = Counter()
        print(f"seed {self.seed}")

    def learn_plan(self) -> None:
        """A true plan, so that EXECUTEs mean something: the one of examples/hello."""
        if (
            not HELLO.exists()
            or subprocess.run([HELLO], env=self.pool.environment, capture_output=True, timeout=30, check=False).returncode != DONE
        ):
            return
        plans = wait_until(lambda: self.pool.answer("plan")["plans"], 5, "the plan is registered")
        path = self.pool.folder / "plan"
        assert self.pool.run("srg", "import", plans[0]["id"], "-o", str(path)).returncode == DONE
        self.plan = (token_bytes(plans[0]["id"]), path.read_bytes())

    def plan_frame(self) -> bytes:
        """The true plan; or with flipped bits; or under another name."""
        if self.plan is None:
            return schema.message("PLAN", self.prng, index=var(0))
        fingerprint, encoded = self.plan
        if self.prng.random() < 0.3:
            changed = bytearray(encoded)
            for _ in range(self.prng.randint(1, 3)):
                changed[self.prng.randrange(len(changed))] ^= 1 << self.prng.randrange(8)
            encoded = bytes(changed)
        if self.prng.random() < 0.1:
            fingerprint = self.prng.randbytes(16)
        return schema.message("PLAN", self.prng, index=var(0), fingerprint=fingerprint, encoded=var(len(encoded)) + encoded)

    def say_all(self, address: str, talk: bytes) -> None:
        last = var(LAST_PING)
        with Peer(address) as peer:
            peer.say(talk + frames.frame(frames.PING, last))
            while (said := peer.hear()) is not None and (said.message, said.body) != (frames.PONG, last):
                self.heard[NAMES[said.message]] += 1
                if said.message == frames.FAILED:
                    self.heard[f"error {said.failed()[1]}"] += 1

    def session(self, address: str) -> None:
        """A client that attaches to a worker as it should, and then says anything."""
        with Peer(self.pool.address) as head:
            head.say(frames.hello(self.token, frames.CLIENT) + frames.session_open())
            assert head.hear().message == frames.HELLO_OK
            grant = Grant(head.hear())
            talk = frames.hello(self.token, frames.CLIENT) + grant.attach() + self.plan_frame()
            counter = 0
            for _ in range(self.prng.randint(1, TALK_MAX)):
                name = self.prng.choice(TO_WORKER)
                fixed = {}
                if self.prng.random() < 0.8 and name in ("EXECUTE", "IMPORT"):
                    counter += 1
                    fixed["counter"] = var(counter)
                if self.prng.random() < 0.8 and name == "EXECUTE":
                    fixed |= {"plan": var(0), "reset": b"\1"}
                bulk = self.prng.randbytes(self.prng.choice([0, 1, 64, 4096])) if name == "LEAF_DATA" else b""
                talk += schema.message(name, self.prng, bulk, **fixed)
            self.say_all(address, talk)

    def talk(self, address: str, role: int, names: list[str], first: bytes = b"") -> None:
        talk = frames.hello(self.token, role) + first
        for _ in range(self.prng.randint(1, TALK_MAX)):
            name = self.prng.choice(names)
            fixed = {"verb": frames.text(self.prng.choice(["status", "plans", "plan", "srg", "%n", ""]))} if name == "ASK" else {}
            talk += schema.message(
                name, self.prng, self.prng.randbytes(self.prng.choice([0, 9, 4096])) if name == "LEAF_DATA" else b"", **fixed
            )
        self.say_all(address, talk)


def rounds_leave_it_well(liar: Liar, pid: int, one_round) -> None:
    for _ in range(ROUNDS):
        one_round()
    before = rss_kib(pid)
    for _ in range(ROUNDS):
        one_round()
        assert is_alive(pid), f"seed {liar.seed}\n" + "\n".join(process.text()[-2000:] for process in liar.pool.processes)
    print(dict(liar.heard))
    wait_until(lambda: rss_kib(pid) - before < RSS_GROWTH_KIB, 5, f"the memory comes back, seed {liar.seed}")


@pytest.mark.parametrize("door", ["address", "address_unix"])
def test_a_worker_survives_clients_that_lie(pool: Pool, door: str) -> None:
    pool.start_head()
    worker = pool.start_worker("guarded")
    liar = Liar(pool)
    liar.learn_plan()
    address = pool.worker("guarded")[door]
    rounds_leave_it_well(liar, worker.pid, lambda: liar.session(address))
    assert pool.worker_names() == ["guarded"]
    if liar.plan is not None:
        done = subprocess.run([HELLO], env=pool.environment, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == DONE, done.stderr
    assert pool.run("stop").returncode == DONE
    assert worker.wait() == DONE


def test_a_worker_survives_workers_that_lie(pool: Pool) -> None:
    pool.start_head()
    worker = pool.start_worker("guarded")
    liar = Liar(pool)
    address = pool.worker("guarded")["address"]
    rounds_leave_it_well(liar, worker.pid, lambda: liar.talk(address, frames.WORKER, OF_WORKER))
    assert pool.run("stop").returncode == DONE
    assert worker.wait() == DONE


def test_a_head_survives_clients_that_lie(pool: Pool) -> None:
    head = pool.start_head()
    worker = pool.start_worker("guarded")
    liar = Liar(pool)
    rounds_leave_it_well(liar, head.pid, lambda: liar.talk(pool.address, frames.CLIENT, OF_CLIENT))
    assert pool.worker_names() == ["guarded"]
    assert pool.run("stop").returncode == DONE
    assert (worker.wait(), head.wait()) == (DONE, DONE)


def test_a_head_survives_workers_that_lie(pool: Pool) -> None:
    head = pool.start_head()
    liar = Liar(pool)

    def one_round() -> None:
        device = (
            frames.text("cpu") + frames.text("cpu") + frames.text("n") + var(1 << 20) + var(1) + var(64) + liar.prng.randbytes(64)
        )
        name = frames.text(f"liar-{liar.prng.randrange(3)}")
        join = schema.message("JOIN", liar.prng, name=name, devices=var(1) + device)
        liar.talk(pool.address, frames.WORKER, OF_JOINED, join if liar.prng.random() < 0.8 else schema.message("JOIN", liar.prng))

    rounds_leave_it_well(liar, head.pid, one_round)
    wait_until(lambda: pool.worker_names() == [], 1, "the liars are gone")
    assert pool.run("plan").returncode == DONE
    assert pool.run("stop").returncode == DONE
    assert head.wait() == DONE


def test_a_client_that_is_refused_is_no_longer_connected(pool: Pool) -> None:
    pool.start_head()
    pool.start_worker("guarded")
    with Peer(pool.address) as peer:
        peer.say(frames.hello(pool.token(), frames.CLIENT) + frames.session_open())
        assert [peer.hear().message for _ in range(2)] == [frames.HELLO_OK, frames.SESSION_GRANT]
        assert [session["connected"] for session in pool.status()["sessions"]] == [True]
        peer.say(frames.frame(frames.JOINED, var(1) * 4))
        assert peer.hear_all()[-1].failed()[1] == frames.UNEXPECTED
        assert [session["connected"] for session in pool.status()["sessions"]] == [False]


def test_a_worker_that_is_refused_is_gone_at_once(pool: Pool) -> None:
    pool.start_head()
    device = frames.text("cpu") + frames.text("cpu") + frames.text("n") + var(1 << 20) + var(1) + var(0)
    with Peer(pool.address) as peer:
        join = schema.message("JOIN", random.Random(1), name=frames.text("liar"), devices=var(1) + device)
        peer.say(frames.hello(pool.token(), frames.WORKER) + join)
        assert [peer.hear().message for _ in range(2)] == [frames.HELLO_OK, frames.JOINED]
        assert pool.worker_names() == ["liar"]
        peer.say(frames.frame(frames.JOINED, var(1) * 4))
        assert peer.hear_all()[-1].failed()[1] == frames.UNEXPECTED
        assert pool.worker_names() == []


def test_a_leaf_that_grows_while_it_arrives_stays_in_its_room(pool: Pool) -> None:
    head = pool.start_head()
    content, small, large = bytes(range(16)), 256, 1 << 20

    def offer(size: int) -> bytes:
        return schema.message("LEAF_OFFER", random.Random(1), leaves=var(1) + content + var(size) + var(0))

    def data(at: int, size: int, bulk: bytes) -> bytes:
        return schema.message("LEAF_DATA", random.Random(1), bulk, content=content, bytes=var(size), offset=var(at))

    with Peer(pool.address) as peer:
        peer.say(frames.hello(pool.token(), frames.CLIENT) + offer(small) + data(0, small, bytes(100)))
        peer.say(offer(large) + data(100, large, bytes(500_000)) + frames.frame(frames.PING, var(1)))
        heard = [peer.hear() for _ in range(4)]
        assert [said.message for said in heard] == [frames.HELLO_OK, schema.MESSAGES["LEAF_NEED"][0], frames.FAILED, frames.PONG]
        assert heard[2].failed()[1] == frames.MALFORMED
    assert is_alive(head.pid) and pool.run("stop").returncode == DONE


def test_a_piece_of_a_leaf_without_bytes_is_refused(pool: Pool) -> None:
    pool.start_head()
    worker = pool.start_worker("guarded")
    address, content, size = pool.worker("guarded")["address"], bytes(range(16)), 1 << 20

    def data(at: int, said: int, bulk: bytes) -> bytes:
        return schema.message("LEAF_DATA", random.Random(1), bulk, content=content, bytes=var(said), offset=var(at))

    with Peer(pool.address) as head, Peer(address) as peer:
        head.say(frames.hello(pool.token(), frames.CLIENT) + frames.session_open())
        assert head.hear().message == frames.HELLO_OK
        peer.say(frames.hello(pool.token(), frames.CLIENT) + Grant(head.hear()).attach())
        peer.say(schema.message("LEAF_OFFER", random.Random(1), leaves=var(1) + content + var(size) + var(0)))
        while (said := peer.hear()) is not None and said.message != schema.MESSAGES["LEAF_NEED"][0]:
            pass
        peer.say(data(0, size, bytes(1 << 16)) + data(1 << 16, 0, b"") + frames.frame(frames.PING, var(1)))
        while (said := peer.hear()) is not None and said.message != frames.PONG:
            pass
        assert said is not None, worker.text()
    assert is_alive(worker.pid)
    assert pool.run("stop").returncode == DONE


def test_the_schema_is_read_as_it_is() -> None:
    assert len(schema.MESSAGES) > 40 and schema.MESSAGES["HELLO"][0] == frames.HELLO
    assert [field.name for field in schema.MESSAGES["PING"][1]] == ["number"]
    prng = random.Random(1)
    assert schema.body("PING", prng, number=var(5)) == b"\5" and struct.calcsize("<d") == 8

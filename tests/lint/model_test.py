"""The protocol's model speaks of the messages and states that the code has."""

import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tree import TreeTest, text_of  # noqa: E402

MODEL = Path("docs/protocol/recovery.pml")
STATES = [Path("frontend/client/protocol/state.h"), Path("sched/state.h")]


def names_of_model(model: str) -> tuple[list[str], list[str]]:
    """What the two mtype declarations list: messages, states."""
    lists = [re.findall(r"\w+", inside) for inside in re.findall(r"^mtype = \{([^}]*)\}", model, re.M)]
    assert len(lists) == 2, "messages, then states"
    return lists[0], lists[1]


def missing(model: str, messages: str, states: str) -> list[str]:
    said, stood = names_of_model(model)
    known_messages = set(re.findall(r"^MESSAGE\(\d+, (\w+),", messages, re.M))
    known_states = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", " ".join(re.findall(r"enum \w+ \{([^}]*)\}", states))))
    return [f"message {name}" for name in said if name not in known_messages] + [
        f"state {name}" for name in stood if name not in known_states
    ]


class Model(TreeTest):
    def test_its_messages_and_states_are_the_codes(self):
        states = "\n".join(text_of(path) for path in STATES)
        self.check_none(missing(text_of(MODEL), text_of(Path("core/wire/messages.def")), states))

    def test_a_name_that_the_code_lacks_is_found(self):
        model = "mtype = { JOURNAL, JOURNEY };\nmtype = { PEER_READY, PEER_LOST };\n"
        found = missing(model, "MESSAGE(27, JOURNAL, journal)\n", "enum peer_state { PEER_READY };")
        self.assertEqual(["message JOURNEY", "state PEER_LOST"], found)

    def test_every_deliberate_bug_of_the_model_is_tried(self):
        script, model = text_of(Path("scripts/model")), text_of(MODEL)
        planted = set(re.findall(r"^#ifn?def (\w+)", model, re.M)) - {"FAULTS", "STEPS_0", "STEPS_1"}
        tried = set(re.findall(r"^bugs='([^']*)'", script, re.M)[0].split())
        self.assertEqual(planted, tried)


if __name__ == "__main__":
    unittest.main()

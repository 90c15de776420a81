"""What the tests of the djinn binary share: a pool of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from live import DJINN, Pool


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A folder and no process yet; all that it starts is gone afterwards."""
    assert DJINN.exists(), f"{DJINN} was not built"
    made = Pool(re.sub(r"\W+", "-", request.node.name)[:60])
    try:
        yield made
    finally:
        made.end()

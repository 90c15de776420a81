"""What a run found, printed as it comes and written as one file of JSON after each finding: a run that is cut off leaves what it had."""

from __future__ import annotations

import json
import os
from pathlib import Path

import tree


class Report:
    """Results of one run in ``$OUT/NAME.json``, else in build/test/gpu."""

    def __init__(self, name: str, gpu: dict) -> None:
        folder = Path(os.environ.get("OUT") or tree.WORK)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.json"
        self.told: dict = {"gpu": gpu, "machine": tree.machine(), "results": []}
        self.write()

    def add(self, line: str, **found: object) -> None:
        """One finding: a line for people, the rest for the file."""
        self.told["results"].append(found)
        self.write()
        print(line, flush=True)

    def set(self, name: str, value: object) -> None:
        self.told[name] = value
        self.write()

    def write(self) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self.told, indent=1, default=str))
        beside.replace(self.path)

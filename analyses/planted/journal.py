"""What a calibration has measured so far, a line for each method and planting, so that a long one can be stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyses.planted.calibrate import Measured
from analyses.planted.roles import Role
from analyses.registry import sources_of
from mechproc.config import digest
from mechproc.files import append
from mechproc.reading import parse_json, read_bytes


class FileJournal:
    """A ``Journal`` in a file of JSON lines. Lines of other code, and a last line that was cut off, are passed over."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.code = digest(sources_of("analyses.planted.calibrate"))
        self.known: dict[str, Measured] = {}
        text = read_bytes(self.path).decode("utf-8", errors="replace") if self.path.exists() else ""
        for line in text.splitlines():
            try:
                plain = parse_json(line)
                roles = {part: Role(role) for part, role in plain["roles"].items()}
                if plain["code"] == self.code:
                    self.known[plain["key"]] = Measured(roles, plain["effects"], plain["draws"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def __len__(self) -> int:
        return len(self.known)

    def get(self, family: Mapping[str, Any], method: str, contrast: str, seed: int) -> Measured | None:
        """What was measured by today's code, if it was."""
        return self.known.get(digest([dict(family), method, contrast, seed]))

    def add(self, family: Mapping[str, Any], method: str, contrast: str, seed: int, measured: Measured) -> None:
        """Append a line."""
        key = digest([dict(family), method, contrast, seed])
        roles = {part: role.value for part, role in measured.roles.items()}
        plain = {"key": key, "method": method, "family": family["kind"], "contrast": contrast, "seed": seed}
        plain |= {"draws": measured.draws, "roles": roles, "effects": dict(measured.effects), "code": self.code}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        start = b"" if self._ends_with_a_line() else b"\n"
        append(self.path, start + json.dumps(plain).encode() + b"\n")
        self.known[key] = measured

    def _ends_with_a_line(self) -> bool:
        if not self.path.exists() or not self.path.stat().st_size:
            return True
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"

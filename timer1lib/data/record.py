"""A sample on its way through the audit: what was found, what was changed, and whether it stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from timer1lib.data.findings import CODES, Finding, Policy, Severity
from timer1lib.schema import Sample


@dataclass(slots=True)
class Record:
    """`published` is never touched; `sample` is a copy that policies repair."""

    published: Sample
    sample: Sample
    file: str
    row: int
    line: int
    policies: Mapping[str, Policy]
    findings: list[Finding] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    dropped_by: str | None = None
    readable_video: str | None = None
    """The video's path below the video folder, where one was given and the file was found."""

    @property
    def split(self) -> str:
        return self.published.split or self.file

    @property
    def fate(self) -> str:
        return "dropped" if self.dropped_by else "repaired" if self.changes else "kept"

    def find(self, code: str, message: str, *, repair: Policy | None = None, severity: Severity | None = None) -> Policy:
        """Note a flaw; returns the policy to follow, and drops the row where that is `drop`."""
        policy = repair or self.policies[code]
        self.findings.append(
            Finding(code, message, self.file, self.row, self.line, self.published.id, severity or CODES[code].severity, policy)
        )
        if policy == "drop":
            self.dropped_by = self.dropped_by or code
        return policy

    def change(self, code: str, field_name: str, before: Any, after: Any) -> None:
        self.changes.append({"id": self.published.id, "code": code, "field": field_name, "before": before, "after": after})

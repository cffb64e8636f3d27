"""Coverage: which runs are finished and what the others still lack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Coverage:
    """
    `missing` names, for every run that is not finished, the outputs it lacks; `clips` says of every clip search, by its
    directory, whether it is finished.
    """

    runs: tuple[str, ...]
    missing: dict[str, tuple[str, ...]]
    clips: dict[str, bool] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        """Runs all of whose evaluations have whole metrics."""
        return len(self.runs) - len(self.missing)

    @property
    def line(self) -> str:
        """For people: `4 of 6 runs finished; missing: a, b.`"""
        noun = "run" if len(self.runs) == 1 else "runs"
        missing = f"; missing: {', '.join(self.missing)}" if self.missing else ""
        return f"{self.finished} of {len(self.runs)} {noun} finished{missing}."

    def as_json(self) -> dict[str, Any]:
        """The content of `coverage.json`."""
        return {
            "line": self.line,
            "finished": self.finished,
            "total": len(self.runs),
            "finished_runs": [run for run in self.runs if run not in self.missing],
            "missing": {run: list(names) for run, names in self.missing.items()},
            "finished_clips": [clip for clip, finished in self.clips.items() if finished],
            "missing_clips": [clip for clip, finished in self.clips.items() if not finished],
        }

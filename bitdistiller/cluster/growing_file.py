"""A log that another process writes."""

from __future__ import annotations

from pathlib import Path


class GrowingFile:
    """What is new in a text file since the last look, which may not exist yet, and starts over when it was cut."""

    def __init__(self, path: Path, tail: int) -> None:
        self.path, self.tail = path, tail
        self._position: int | None = None

    def news(self) -> str:
        """The text since the last call; at the first, the last `tail` lines."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as handle:
            if self._position is None:
                data = b"".join(handle.readlines()[-self.tail :])
            else:
                handle.seek(self._position if self.path.stat().st_size >= self._position else 0)
                data = handle.read()
            self._position = handle.tell()
        return data.decode(errors="replace")

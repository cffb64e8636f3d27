"""The table of faults in docs/cluster.md, from the CSV that the tests write and whose path is the argument."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

HEAD = ("fault", "stage", "what happened", "work lost", "seconds to recover")


def table(path: Path) -> str:
    """Markdown; a fault that was struck several times is one line with the range of its seconds."""
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    with path.open(newline="") as handle:
        for row in csv.DictReader(handle):
            groups.setdefault((row["fault"], row["stage"], row["happened"]), []).append(row)
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    order = list(dict.fromkeys(fault for fault, _, _ in groups))
    for (fault, stage, happened), rows in sorted(groups.items(), key=lambda group: order.index(group[0][0])):
        lost = max((row["lost"] for row in rows), key=lambda text: int(text.split()[0]) if text[0].isdigit() else 0)
        lines.append(f"| {fault} | `{stage}` | {happened} | {lost} | {_range(rows)} |")
    return "\n".join(lines)


def _range(rows: list[dict[str, str]]) -> str:
    seconds = sorted(round(float(row["seconds"])) for row in rows if row["seconds"])
    if not seconds:
        return ""
    return str(seconds[0]) if seconds[0] == seconds[-1] else f"{seconds[0]} to {seconds[-1]}"


if __name__ == "__main__":
    sys.stdout.write(table(Path(sys.argv[1])) + "\n")

"""Write generated text into README.md: the rule graph, and the demo's table as it came out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RULE_GRAPH = ROOT / "docs" / "rulegraph.mmd"


def rule_graph() -> str:
    """The rules of the demo as a mermaid chart, without Snakemake's colours, which change from run to run."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "mermaid-js"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", text))
    edges = sorted({(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", text) if names[b] != "all"})
    return "flowchart LR\n" + "".join(f"    {a} --> {b}\n" for a, b in edges)


def embed(text: str, mark: str, content: str) -> str:
    """`text` with everything between the two comments of `mark` replaced by `content`."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->\n"
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"README.md has no place marked {mark}")
    return before + begin + content.strip() + "\n" + end + rest.partition(end)[2]


def main() -> None:
    """Regenerate the rule graph; with a table file as argument also the demo's table."""
    RULE_GRAPH.write_text(rule_graph(), encoding="utf-8")
    readme = ROOT / "README.md"
    text = embed(readme.read_text(encoding="utf-8"), "rules", f"```mermaid\n{RULE_GRAPH.read_text()}```")
    if len(sys.argv) > 1:
        text = embed(text, "table", Path(sys.argv[1]).read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""A profile's text: values replaced line by line in the template, so that its comments stay."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from bitdistiller.errors import InputError

TEMPLATE = Path("profiles/slurm/profile.v9+.yaml")
SECTION = "default-resources:"


def template(root: Path) -> str:
    """The profile of the repository `root`."""
    path = root / TEMPLATE
    if not path.is_file():
        raise InputError(f"{TEMPLATE}: not found in {root}; run this in the repository's root")
    return path.read_text(encoding="utf-8")


def render(text: str, heading: str, options: Mapping[str, str], resources: Mapping[str, str]) -> str:
    """
    The profile `text` with its opening comment replaced by `heading` and with these options and default resources.

    Values are YAML. A comment behind a replaced value stays; new options go before the default resources.
    """
    body = re.sub(r"\A(#.*\n)*", "", text)
    options_text, _, resources_text = body.partition(SECTION + "\n")
    for key, value in options.items():
        options_text = with_value(options_text, key, value)
    for key, value in resources.items():
        resources_text = with_value(resources_text, key, value, indent="  ")
    return "".join(f"# {line}\n" for line in heading.splitlines()) + options_text + SECTION + "\n" + resources_text


def with_value(text: str, key: str, value: str, indent: str = "") -> str:
    """`text` with one `key: value` line replaced, or appended where it has none."""
    line = f"{indent}{key}: {value}"
    pattern = re.compile(rf"^{indent}{re.escape(key)}: .*?(?P<comment> #[^\n]*)?$", re.MULTILINE)
    found = pattern.search(text)
    if found is None:
        return f"{text}{line}\n"
    return text[: found.start()] + line + (found["comment"] or "") + text[found.end() :]


def quoted(value: str) -> str:
    """A text of `default-resources`, which Snakemake would evaluate as Python if it were quoted once only."""
    return f"\"'{value}'\""


def differences(old: str, new: str) -> list[str]:
    """The lines that differ, `-` before an old and `+` before a new one."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]

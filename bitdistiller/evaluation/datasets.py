"""Where the rows of an evaluation come from."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from bitdistiller.data.rows import Row, hub_rows, load_rows
from bitdistiller.errors import InputError


@dataclass(frozen=True)
class HubSplit:
    """A split of a dataset on the hub."""

    hub: str
    name: str | None
    split: str


HUB: dict[str, HubSplit] = {
    "wikitext2": HubSplit("wikitext", "wikitext-2-raw-v1", "test"),
    "c4": HubSplit("allenai/c4", "en", "validation"),
    "gsm8k": HubSplit("openai/gsm8k", "main", "test"),
    "humaneval": HubSplit("openai/openai_humaneval", None, "test"),
}


def rows(dataset: str, path: Path | None, count: int | None = None) -> list[Row]:
    """The first `count` rows (None: all) of the local file, or of the hub's dataset where there is no path."""
    if path is not None:
        return load_rows(path)[:count]
    if dataset not in HUB:
        raise InputError(f"dataset {dataset} has no place on the hub; give its path (accepted: any local file)")
    place = HUB[dataset]
    return list(itertools.islice(hub_rows(place.hub, place.name, place.split), count))

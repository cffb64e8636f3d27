"""The text track: short stories from a grammar whose names, things and places come back until the last sentence."""

import random

from bitdistiller.demo.grammar import FRESH, KEPT, NAMES, OBJECT_CASE, OPENING, OWN, PLOTS


class _Words(dict[str, str]):
    """What has been chosen for a story; every other name is drawn anew from FRESH."""

    def __init__(self, chosen: dict[str, str], rng: random.Random) -> None:
        super().__init__(chosen)
        self._rng = rng

    def __missing__(self, name: str) -> str:
        if name == "near_":
            return self["near"].capitalize()
        return self._rng.choice(FRESH[name])


def draw(rng: random.Random) -> tuple[str, dict[str, str]]:
    """One story: its split key (plot and cast, so that no story of one split is told in another) and {"text"}."""
    chosen, plot = _cast(rng), rng.choice(list(PLOTS))
    words = _Words(chosen, rng)
    text = " ".join(rng.choice(sentences).format_map(words) for sentences in OPENING + PLOTS[plot])
    key = " ".join([plot, *(chosen[name] for name in ("name", "animal", "colour", "thing", "friend", "animal2"))])
    return key, {"text": text}


def _cast(rng: random.Random) -> dict[str, str]:
    chosen = {name: rng.choice(words) for name, words in KEPT.items()}
    chosen["animal2"] = rng.choice([animal for animal in KEPT["animal"] if animal != chosen["animal"]])
    he, he2 = rng.choice(list(NAMES)), rng.choice(list(NAMES))
    chosen["name"] = rng.choice(NAMES[he])
    chosen["friend"] = rng.choice([name for name in NAMES[he2] if name != chosen["name"]])
    chosen |= {"he": he, "his": OWN[he], "him": OBJECT_CASE[he], "he2": he2, "him2": OBJECT_CASE[he2]}
    return chosen | {"He": he.capitalize(), "His": OWN[he].capitalize()}

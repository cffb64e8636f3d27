"""The demo corpus: three seeded tracks whose train, validation and test splits share no problem."""

import random
import zlib
from collections.abc import Iterator

from bitdistiller.demo import arithmetic, functions, stories
from bitdistiller.errors import InputError

TRACKS = {"demo-text": stories.draw, "demo-math": arithmetic.draw, "demo-code": functions.draw}
PROBLEM_TRACKS = ("demo-math", "demo-code")
SPLITS = ("train", "validation", "test")
PATIENCE = 2000


def documents(track: str, split: str, seed: int = 42, count: int = 100) -> list[dict[str, str]]:
    """The first `count` documents of a track's split; a smaller count gives a prefix of a larger one.

    Text documents are {"text"}; mathematics {"prompt", "completion", "answer"}; code {"prompt", "completion",
    "test", "entry_point"}, where `test` defines HumanEval's check(candidate). All carry "id" and "dataset".
    No document repeats within a split, and a split never sees another one's operands, constants or story
    whatever the two seeds. Raises InputError for an unknown track or split, or a count above what the split holds.
    """
    if track not in TRACKS:
        raise InputError(f"dataset: unknown demo track '{track}', accepted: {', '.join(TRACKS)}")
    if split not in SPLITS:
        raise InputError(f"split: '{split}' is not a split of {track}, accepted: {', '.join(SPLITS)}")
    stream = _unique(track, split, random.Random(f"{track} {split} {seed}"))
    found = [
        {"id": f"{track}-{split}-{index}", "dataset": track} | document
        for index, document in zip(range(count), stream, strict=False)
    ]
    if len(found) < count:
        raise InputError(f"samples: {track} has about {len(found)} {split} documents, {count} were asked for")
    return found


def full_text(document: dict[str, str]) -> str:
    """What a model is trained on, without the end-of-sequence token: the text, or prompt and completion."""
    return document["text"] if "text" in document else document["prompt"] + document["completion"]


def split_of(key: str) -> str:
    """The split that owns a key: a tenth test, a tenth validation, the rest train, by checksum."""
    bucket = zlib.crc32(key.encode()) % 10
    return {0: "test", 1: "validation"}.get(bucket, "train")


def _unique(track: str, split: str, rng: random.Random) -> Iterator[dict[str, str]]:
    seen: set[str] = set()
    misses = 0
    while misses < PATIENCE:
        key, document = TRACKS[track](rng)
        text = full_text(document)
        misses += 1
        if split_of(key) == split and text not in seen:
            misses = 0
            seen.add(text)
            yield document

"""Configuration as text: experiment files, recipes on the command line, and one-line errors for both."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from bitdistiller.config import Experiment
from bitdistiller.environments import BASELINES
from bitdistiller.errors import InputError

logger = logging.getLogger(__name__)

Parsed = TypeVar("Parsed")


def parse(kind: type[Parsed], value: Any, where: str) -> Parsed:
    """`value` as a `kind`; raises InputError with the first wrong key, what is wrong and what is accepted."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error, kind)}") from None


def explain(error: ValidationError, kind: Any) -> str:
    """
    The first wrong key of a validation as one line: key path, what is wrong, what is accepted.

    An unknown key comes before others, as a misspelt one also leaves its right name missing.
    """
    schema = TypeAdapter(kind).json_schema()
    errors = [(_locate(entry, schema), entry) for entry in error.errors(include_url=False)]
    key, first = min(errors, key=lambda found: found[1]["type"] != "extra_forbidden")
    same = [entry for other, entry in errors if other == key]
    more = f" (and {len(errors) - len(same)} more)" if len(errors) > len(same) else ""
    return f"{key}: {_complaint(first, same, schema)}{more}".removeprefix(": ")


def _complaint(first: Any, same: list[Any], schema: dict[str, Any]) -> str:
    if first["type"] == "extra_forbidden":
        _, section = _follow(first["loc"][:-1], schema)
        accepted = ", ".join(sorted(section.get("properties", {})))
        return f"unknown key{f'; accepted: {accepted}' if accepted else ''}"
    if first["type"] == "union_tag_invalid":
        return f"input should be {first['ctx']['expected_tags']}, not {first['ctx']['tag']!r}"
    if first["type"] == "union_tag_not_found":
        return "field required"
    messages = [entry["msg"].removeprefix("Value error, ") for entry in same]
    text = ", or ".join(message[0].lower() + message[1:] for message in messages)
    plain = first["type"] not in ("missing", "value_error") and not isinstance(first["input"], (dict, list))
    return f"{text}, not {first['input']!r}" if plain else text


def _locate(entry: Any, schema: dict[str, Any]) -> str:
    """The key path of an error, without the parts of pydantic's location that no file has (tags, union members)."""
    extra = entry["type"] == "extra_forbidden"
    keys, _ = _follow(entry["loc"][:-1] if extra else entry["loc"], schema)
    tag = entry.get("ctx", {}).get("discriminator", "").strip("'")
    return ".".join([*keys, *map(str, entry["loc"][-1:] if extra else ()), *([tag] if tag else ())])


def _follow(location: tuple[Any, ...], schema: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The keys of `location` and the part of the JSON schema that they lead to."""
    keys, node = [], _resolve(schema, schema)
    for part in location:
        choices = node.get("discriminator", {}).get("mapping", {})
        inner = {"$ref": choices[part]} if part in choices else _step(node, part)
        if inner is not None:
            node = _resolve(inner, schema)
            keys += [] if part in choices else [str(part)]
    return keys, node


def _step(node: dict[str, Any], part: Any) -> dict[str, Any] | None:
    if isinstance(part, int):
        return node.get("items")
    if part in node.get("properties", {}):
        return node["properties"][part]
    inner = node.get("additionalProperties") or next(iter(node.get("patternProperties", {}).values()), None)
    return inner if isinstance(inner, dict) else None


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    sections = [option for option in node.get("anyOf", []) if "$ref" in option]
    if "$ref" not in node and len(sections) == 1:
        node = sections[0]
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def read_yaml(path: Path) -> Any:
    """The value of a YAML (or JSON) file; raises InputError when it is missing or not YAML."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def parse_yaml(text: str, where: str) -> Any:
    """The value of YAML (or JSON) text; raises InputError when it is neither."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: is not YAML ({' '.join(str(error).split())})") from None


def load_experiment(source: Path | dict[str, Any]) -> Experiment:
    """
    An experiment from its file or from what Snakemake read of it; raises InputError with one line.

    Runs with `when_available` are left out where the environment of the baselines is missing.
    """
    if isinstance(source, dict):
        experiment = parse(Experiment, source, "config")
    else:
        experiment = parse(Experiment, read_yaml(source) or {}, str(source))
    kept = {name: run for name, run in experiment.runs.items() if not run.when_available}
    if len(kept) == len(experiment.runs) or not BASELINES.is_missing():
        return experiment
    left = ", ".join(name for name in experiment.runs if name not in kept)
    logger.info("left out: %s, for want of %s; %s", left, BASELINES.title, BASELINES.remedy)
    return experiment.model_copy(update={"runs": kept})


def load_recipe(kind: type[Parsed], text: str | None, changes: list[str]) -> Parsed:
    """
    A recipe from `--recipe` (YAML or JSON text, or the path of such a file) and `--set key.key=value` changes.

    Raises InputError with one line.
    """
    value: Any = {}
    if text:
        value = read_yaml(Path(text)) if _is_file(text) else parse_yaml(text, "--recipe")
    if not isinstance(value, dict):
        raise InputError("--recipe: give a mapping (YAML or JSON), or the path of a file that holds one")
    for change in changes:
        key, equals, new = change.partition("=")
        if not (key and equals):
            raise InputError(f"--set {change}: give key=value")
        _assign(value, key.split("."), parse_yaml(new, f"--set {change}"))
    return parse(kind, value, "--recipe")


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # longer than a file name can be, or not one
        return False


def _assign(value: dict[str, Any], keys: list[str], new: Any) -> None:
    for key in keys[:-1]:
        value = value.setdefault(key, {})
        if not isinstance(value, dict):
            raise InputError(f"--set {'.'.join(keys)}: {key} is not a section")
    value[keys[-1]] = new


def as_text(recipe: BaseModel) -> str:
    """A recipe as compact JSON without defaults, as a rule passes it to `--recipe`; equal recipes give equal text."""
    return recipe.model_dump_json(exclude_defaults=True)

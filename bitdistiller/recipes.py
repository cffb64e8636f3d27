"""Configuration as text: experiment files, recipes on the command line, and one-line errors for both."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from bitdistiller.config import Experiment
from bitdistiller.errors import InputError

Parsed = TypeVar("Parsed")


def parse(kind: type[Parsed], value: Any, where: str) -> Parsed:
    """`value` as a `kind`; raises InputError with the first wrong key, what is wrong and what is accepted."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error, kind)}") from None


def explain(error: ValidationError, kind: Any) -> str:
    """The first error of a validation as one line: key path, what is wrong, what is accepted."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "the value"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        accepted = ", ".join(_accepted(kind, first["loc"][:-1]))
        return f"{key}: unknown key{f'; accepted: {accepted}' if accepted else ''}{more}"
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in ("missing", "value_error") else f", not {first['input']!r}"
    return f"{key}: {message[0].lower() + message[1:]}{given}{more}"


def _accepted(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """Keys of the section at `location` of the JSON schema of `kind`."""
    schema = TypeAdapter(kind).json_schema()
    node = _resolve(schema, schema)
    for part in location:
        node = _resolve(_step(node, part), schema)
    return sorted(node.get("properties", {}))


def _step(node: dict[str, Any], part: Any) -> dict[str, Any]:
    if isinstance(part, int):
        return node.get("items", {})
    if part in node.get("properties", {}):
        return node["properties"][part]
    choices = node.get("discriminator", {}).get("mapping", {})
    if part in choices:
        return {"$ref": choices[part]}
    inner = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
    return next((section for section in inner if isinstance(section, dict)), {})


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
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None


def load_experiment(source: Path | dict[str, Any]) -> Experiment:
    """An experiment from its file or from what Snakemake read of it; raises InputError with one line."""
    if isinstance(source, dict):
        return parse(Experiment, source, "config")
    return parse(Experiment, read_yaml(source) or {}, str(source))


def load_recipe(kind: type[Parsed], text: str | None, changes: list[str]) -> Parsed:
    """
    A recipe from `--recipe` (YAML or JSON text, or the path of such a file) and `--set key.key=value` changes.

    Raises InputError with one line.
    """
    value: Any = {}
    if text:
        path = Path(text)
        value = read_yaml(path) if "\n" not in text and len(text) < 4096 and path.is_file() else yaml.safe_load(text)
    if not isinstance(value, dict):
        raise InputError("--recipe: give a mapping (YAML or JSON), or the path of a file that holds one")
    for change in changes:
        key, equals, new = change.partition("=")
        if not equals:
            raise InputError(f"--set {change}: give key=value")
        _assign(value, key.split("."), yaml.safe_load(new))
    return parse(kind, value, "--recipe")


def _assign(value: dict[str, Any], keys: list[str], new: Any) -> None:
    for key in keys[:-1]:
        value = value.setdefault(key, {})
        if not isinstance(value, dict):
            raise InputError(f"--set {'.'.join(keys)}: {key} is not a section")
    value[keys[-1]] = new


def as_text(recipe: BaseModel) -> str:
    """A recipe as compact JSON without defaults, as a rule passes it to `--recipe`; equal recipes give equal text."""
    return recipe.model_dump_json(exclude_defaults=True)

"""The configuration classes as documentation: option lists for the terminal, a JSON schema for editors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter

from bitdistiller import config

RECIPES: dict[str, Any] = {
    "pretrain-demo": config.DemoTeacherRecipe,
    "clip": config.ClipRecipe,
    "gram": config.GramRecipe,
    "baseline": config.BaselineRecipe,
    "generate": config.Mix,
    "mix": config.Mix,
    "tokenize": config.TokenizeRecipe,
    "cache-teacher": config.CacheRecipe,
    "warm-start": config.WarmStartRecipe,
    "train": config.TrainRecipe,
    "export": config.ExportRecipe,
    "convert": config.ConvertRecipe,
    "evaluate": config.EvaluateRecipe,
    "experiment": config.Experiment,
}


def experiment_schema() -> dict[str, Any]:
    """JSON schema of an experiment file; every object in it is closed."""
    schema = TypeAdapter(config.Experiment).json_schema()
    _close(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _close(node: Any) -> None:
    """Forbid names that no pattern allows, so that an editor marks a wrong name too."""
    if isinstance(node, dict):
        if "patternProperties" in node:
            node["additionalProperties"] = False
        if names := node.get("propertyNames", {}).get("enum"):
            node["properties"] = dict.fromkeys(names, node["additionalProperties"])
            node["additionalProperties"] = False
        node = list(node.values())
    for value in node if isinstance(node, list) else ():
        _close(value)


def describe(recipe: type[BaseModel]) -> str:
    """One line per option: key, accepted values, default, meaning."""
    return "\n".join(_lines(recipe, "", []))


def _lines(section: type[BaseModel], prefix: str, parents: list[type[BaseModel]]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        inner = [kind for kind in _models(field.annotation) if kind not in parents]
        default = "required" if field.is_required() else f"default {_plain(field.default)}"
        meaning = f"  {' '.join((field.description or '').split())}" if field.description else ""
        if inner and not field.is_required():
            default = "a section"
        yield f"{key} ({_kind(field.annotation)}; {default}){meaning}" if not inner else f"{key} ({default}){meaning}"
        for kind in inner:
            title = f" [{kind.__name__}]" if len(inner) > 1 else ""
            for line in _lines(kind, f"{key}.", [*parents, kind]):
                yield line + title


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _models(part)]


def _kind(annotation: Any) -> str:
    schema = TypeAdapter(annotation).json_schema()
    choices = schema.get("anyOf", [schema])
    texts = ["|".join(map(str, c["enum"])) if "enum" in c else str(c.get("type", "text")) for c in choices]
    return " or ".join(texts)


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)

"""Ablations: runs that differ from another one in a single choice each."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from bitdistiller.config.base import Name, Section
from bitdistiller.config.runs import METHODS, Run
from bitdistiller.config.training import Training

RUN_FACTORS = ("format", "group_size", "scale_dtype", "teacher")
"""Options of a run that an ablation may vary, beside those of its training."""
UNCLIPPED = "distilled"


class Ablation(Section):
    """
    Runs made from a trained one, each with one factor changed; their table is `ablation.*`.

    A run is called `<base>-<factor>-<value>`, and one without clipping `<base>-no-clip`.
    """

    base: Name
    """The run that all others differ from."""
    vary: Annotated[dict[Name, list[Any]], Field(min_length=1)]
    """Values by factor: an option of the training (loss, gamma, learning_rate, ...); format, group_size, scale_dtype or
    teacher of the run; `samples`, shares of the mix's samples; `clip: [off]`, training from unclipped weights."""
    runs: dict[Name, tuple[str, str]] = {}
    """Factor and value of every run; filled in when the experiment is read."""

    @property
    def rows(self) -> dict[str, tuple[str, str]]:
        """Factor and value of every row of the table; the first is the base, without a factor."""
        return {self.base: ("", self.base), **self.runs}


def expand(content: Any) -> Any:
    """
    An experiment as read from its file, with the runs of its `ablation` beside the others; the input stays as it is.

    Whatever is no experiment with an ablation comes back as it is. Raises ValueError with one line for a base that
    trains nothing, an unknown factor, a value that is the base's own, and a name that is taken.
    """
    ablation = content.get("ablation") if isinstance(content, dict) else None
    if not isinstance(ablation, dict) or ablation.get("runs") or not isinstance(ablation.get("vary"), dict):
        return content
    sections = {name: content.get(name) or {} for name in ("runs", "trainings", "mixes")}
    if not all(_is_mappings(section) for section in sections.values()):
        return content
    expanded = content | {name: dict(section) for name, section in sections.items()}
    base = expanded["runs"].get(str(ablation.get("base")), {})
    if not getattr(METHODS.get(str(base.get("method"))), "train", False):
        raise ValueError(f"ablation.base: {ablation.get('base')!r} is no run of this experiment that trains")
    if not (base.get("training") in expanded["trainings"] and base.get("mix") in expanded["mixes"]):
        return content
    named = {}
    for factor, values in ablation["vary"].items():
        for value in values if isinstance(values, list) else [values]:
            name, run = _variant(str(ablation["base"]), base, factor, value, expanded)
            if name in expanded["runs"]:
                raise ValueError(f"ablation.vary.{factor}: there is a run {name} already")
            expanded["runs"][name] = run
            named[name] = (factor, "off" if value is False else str(value))
    return expanded | {"ablation": ablation | {"runs": named}}


def _is_mappings(section: Any) -> bool:
    """Whether a section is what the expansion can work on; the schema complains of everything else."""
    return isinstance(section, dict) and all(isinstance(value, dict) for value in section.values())


def _variant(name: str, base: dict[str, Any], factor: str, value: Any, content: Any) -> tuple[str, dict[str, Any]]:
    """Name and content of the run with one factor changed; its training or mix is added to `content`."""
    text = re.sub(r"[^a-z0-9.]+", "-", str(value).lower()).strip("-.")
    where = f"ablation.vary.{factor}"
    if factor == "clip":
        if value is not False and str(value).lower() != "off":
            raise ValueError(f"{where}: {value!r}; accepted: off (the base clips)")
        if not METHODS[base["method"]].clip:
            raise ValueError(f"{where}: 'off' is the base's own")
        return f"{name}-no-clip", {k: v for k, v in base.items() if k != "calibration"} | {"method": UNCLIPPED}
    if factor in RUN_FACTORS:
        _differs(base.get(factor, Run.model_fields[factor].default), value, where)
        return f"{name}-{factor}-{text}", base | {factor: value}
    if factor == "samples":
        return f"{name}-samples-{text}", base | {"mix": _smaller_mix(base["mix"], value, text, where, content)}
    if factor not in Training.model_fields:
        accepted = ("clip", "samples", *RUN_FACTORS)
        raise ValueError(f"{where}: unknown factor; accepted: {', '.join(accepted)}, or an option of the training")
    own = content["trainings"][base["training"]]
    _differs(own.get(factor, Training.model_fields[factor].default), value, where)
    training = f"{base['training']}-{factor}-{text}"
    content["trainings"].setdefault(training, own | {factor: value})
    return f"{name}-{factor}-{text}", base | {"training": training}


def _differs(own: Any, value: Any, where: str) -> None:
    if own == value:
        raise ValueError(f"{where}: {value!r} is the base's own")


def _smaller_mix(mix: str, share: Any, text: str, where: str, content: Any) -> str:
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ValueError(f"{where}: {share!r}; accepted: shares between 0 and 1")
    whole = content["mixes"][mix]
    counts = ("samples", "prompts")
    sources = [
        source | {key: max(1, round(source[key] * share)) for key in counts if isinstance(source.get(key), int)}
        for source in whole.get("sources", [])
    ]
    content["mixes"].setdefault(f"{mix}-{text}", whole | {"sources": sources})
    return f"{mix}-{text}"

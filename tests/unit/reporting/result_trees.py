"""An experiment like the embedded default, and a results directory as its stages would have left it."""

import json
import math
from pathlib import Path

from bitdistiller.config import Experiment

EVALUATIONS = {
    "text": {"kind": "perplexity", "dataset": "demo-text", "label": "Text perplexity", "published": "ppl"},
    "arithmetic": {"kind": "math", "dataset": "demo-math", "label": "Arithmetic", "published": "gsm8k"},
    "code": {"kind": "code", "dataset": "demo-code", "label": "Code pass@1"},
}
UNITS = {"text": ("perplexity", "chunks", 200), "arithmetic": ("exact_match", "questions", 500)}
UNITS["code"] = ("pass@1", "problems", 300)

# run: (method, format, bits per weight, perplexity, arithmetic, code)
RUNS = {
    "fp16": ("16-bit", None, None, 5.1, 0.92, 0.88),
    "int3": ("bitdistiller", "int3", 3.1484375, 5.3, 0.88, 0.84),
    "nf3": ("bitdistiller", "nf3", 3.25, 5.28, 0.89, 0.86),
    "rtn-int2": ("rtn", "int2", 2.140625, 4000.4, 0.0, 0.0),
    "clip-int2": ("clip", "int2", 2.140625, 60.0, 0.01, 0.02),
    "int2": ("bitdistiller", "int2", 2.140625, 6.4, 0.71, 0.69),
}


def make_experiment(**changes) -> Experiment:
    """The demo grid; `changes` replace top-level keys."""
    runs = {}
    for name, (method, number_format, *_) in RUNS.items():
        run = {"model": "teacher", "method": method}
        run |= {"format": number_format} if number_format else {}
        run |= {"calibration": "demo"} if method in ("clip", "bitdistiller") else {}
        run |= {"mix": "demo", "training": "short"} if method == "bitdistiller" else {}
        runs[name] = run
    experiment = {
        "experiment": "demo",
        "title": "Embedded demo",
        "models": {"teacher": {"demo": {}, "title": "Demo teacher"}},
        "calibrations": {"demo": {"texts": "demo"}},
        "mixes": {"demo": {"teacher": "teacher", "sources": [{"dataset": "demo-text", "samples": 10}]}},
        "trainings": {"short": {}},
        "evaluations": EVALUATIONS,
        "runs": runs,
    }
    return Experiment.model_validate(experiment | changes)


def write_metrics(
    results: Path, run: str, evaluation: str, value: float | None, model: str = "teacher", **entry
) -> Path:
    """One `metrics.json`; keywords replace keys of its only metric, `protocol` the protocol."""
    metric, unit, n = UNITS[evaluation]
    kind = EVALUATIONS[evaluation]["kind"]
    fraction = kind != "perplexity"
    spread = value is not None and (math.sqrt(value * (1 - value) / n) if fraction else value * 0.012)
    protocol = entry.pop("protocol", {"chunk_length": 128} if kind == "perplexity" else {"temperature": 0.0})
    numbers = {"value": value, "standard_error": spread or None, "n": n, "unit": unit, "higher_is_better": fraction}
    content = {"evaluation": evaluation, "kind": kind, "metrics": {metric: numbers | entry}, "protocol": protocol}
    path = results / model / run / "evaluation" / evaluation / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_run(results: Path, run: str) -> None:
    """Everything the stages leave for one run."""
    method, number_format, bits, *values = RUNS[run]
    for evaluation, value in zip(EVALUATIONS, values, strict=True):
        write_metrics(results, run, evaluation, value)
    folder = results / "teacher" / run
    if number_format:
        (folder / "export").mkdir()
        (folder / "export" / "export.json").write_text(json.dumps({"bits_per_weight": bits, "file_bytes": 400_000}))
    if method == "bitdistiller":
        write_history(folder / "train", {"int2": 0.9, "int3": 0.3, "nf3": 0.25}[run])


def write_history(folder: Path, floor: float) -> None:
    """A history that falls towards `floor`, with an evaluation every 20 of 200 steps."""
    folder.mkdir(exist_ok=True)
    lines = []
    for step in range(1, 201):
        loss = floor * (1 + 6 * math.exp(-step / 30) + 0.08 * math.sin(step * 1.7) + 0.05 * math.sin(step * 0.61))
        lines.append({"step": step, "loss": loss, "learning_rate": 1e-4, "tokens": 2048})
        if step % 20 == 0:
            drift = 0.05 * max(0, step - 160) / 40
            lines.append({"step": step, "evaluation_loss": floor * (1.05 + 5.5 * math.exp(-step / 30) + drift)})
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "gamma.json").write_text(json.dumps({"gamma": 0.71}))


PROJECTIONS = ("self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def write_clip(results: Path, name: str = "demo-int2-g128", blocks: int = 2, **changes) -> Path:
    """`clip.json` of a search; layer i, counted from 1, had the error i and has i / 4. `changes` are of every layer."""
    layers = []
    for block in range(blocks):
        for projection in PROJECTIONS:
            error = float(len(layers) + 1)
            layer = {"name": f"model.layers.{block}.{projection}", "tokens": 640, "groups": 20}
            layer |= {"error_before": error, "error_after": error / 4, "maximum_ratio": 0.9, "minimum_ratio": 0.75}
            layer |= {"maximum_histogram": [10, 0, 0, 0, 10, 0, 0, 0, 0, 0]}
            layer |= {"minimum_histogram": [0, 0, 0, 0, 0, 20, 0, 0, 0, 0]}
            layers.append(layer | changes)
    _, number_format, group_size = name.split("-")
    content = {"format": number_format, "group_size": int(group_size[1:]), "tokens": 640, "layers": layers}
    path = results / "teacher" / "clip" / name / "clip.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path

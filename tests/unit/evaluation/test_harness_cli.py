"""Multiple choice on real data beside lm-eval's own command with its unmodified tasks."""

import gzip
import json
import os
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from bitdistiller.config import EvaluateRecipe
from bitdistiller.evaluation import stage as evaluate_stage

pytestmark = pytest.mark.slow
ITEMS = 100
FILES = {
    "arc_easy": "arc_easy/test.jsonl.gz",
    "piqa": "piqa/validation.jsonl.gz",
    "winogrande": "winogrande/validation.jsonl.gz",
    "openbookqa": "openbookqa/test.jsonl.gz",
}


def arc(row):
    labels = "ABCDE"[: len(row["choices"])]
    choices = {"text": row["choices"], "label": list(labels)}
    return {"id": row["id"], "question": row["question"], "choices": choices, "answerKey": labels[row["gold"]]}


def openbookqa(row):
    content = arc(row)
    return {"question_stem": content.pop("question"), **content}


def piqa(row):
    return {"goal": row["goal"], "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["gold"]}


def winogrande(row):
    options = {"option1": row["choices"][0], "option2": row["choices"][1]}
    return {"sentence": row["sentence"], "answer": "12"[row["gold"]], **options}


# Where the hub has them: dataset, configuration, split of the questions, and the other splits that the task names.
MIRROR = {
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy", "test", ("train", "validation"), arc),
    "piqa": ("baber/piqa", "default", "validation", ("train",), piqa),
    "winogrande": ("allenai/winogrande", "winogrande_xl", "validation", ("train",), winogrande),
    "openbookqa": ("allenai/openbookqa", "main", "test", ("train", "validation"), openbookqa),
}


def is_whole(row, tokenizer):
    """
    Whether every choice of an OpenBookQA question leaves a token behind its context.

    Without byte fallback the tokenizer may draw a choice wholly into it; lm-eval gives that choice a log-likelihood of
    0, the best there is, and ours tokenises it by itself.
    """
    context = row["question"]
    lengths = [len(tokenizer.encode(text)) for text in (context, *(f"{context} {c}" for c in row["choices"]))]
    return all(length > lengths[0] for length in lengths[1:])


@pytest.fixture
def local(test_data, tmp_path):
    """The files of the tasks, as a user has them."""
    tokenizer = AutoTokenizer.from_pretrained(test_data / "models" / "TinyStories-656K")
    paths = {}
    for task, file in FILES.items():
        with gzip.open(test_data / "datasets" / file, "rt", encoding="utf-8") as handle:
            rows = [json.loads(line) for line in handle]
        rows = [row for row in rows if task != "openbookqa" or is_whole(row, tokenizer)]
        paths[task] = tmp_path / f"{task}.jsonl"
        paths[task].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


@pytest.fixture
def mirror(local, tmp_path):
    """A directory in which the hub's names of the datasets are directories, as `datasets` looks them up first."""
    for task, path in local.items():
        hub, name, split, others, convert = MIRROR[task]
        rows = [convert(json.loads(line)) for line in path.read_text().splitlines()]
        folder = tmp_path / hub
        folder.mkdir(parents=True)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths = "".join(f"  - split: {each}\n    path: rows.jsonl\n" for each in (split, *others))
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {name}\n  data_files:\n{paths}---\n")
    return tmp_path


def test_equals_the_command_of_lm_eval(test_data, local, mirror, tmp_path):
    model = test_data / "models" / "TinyStories-656K"
    options = ["--model_args", f"pretrained={model},dtype=float32,max_length=512", "--device", "cpu"]
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", *options, "--tasks", *FILES]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command += ["--limit", str(ITEMS), "--batch_size", "16", "--output_path", "theirs"]
    subprocess.run(command, cwd=mirror, env=os.environ | offline, check=True, capture_output=True)
    (file,) = (mirror / "theirs").rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]
    for task, path in local.items():
        evaluation = {"kind": "multiple_choice", "task": task, "path": path}
        recipe = EvaluateRecipe(name=task, evaluation=evaluation | {"max_items": ITEMS}, dtype="float32")
        evaluate_stage.run(recipe, model=model, output=tmp_path / "ours" / task)
        ours = json.loads((tmp_path / "ours" / task / "metrics.json").read_text())["metrics"]
        for name, metric in ours.items():
            assert metric["value"] == pytest.approx(theirs[task][f"{name},none"], abs=1e-9), task
            assert metric["standard_error"] == pytest.approx(theirs[task][f"{name}_stderr,none"], abs=1e-6), task

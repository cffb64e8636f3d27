"""lm-eval's own tasks on local files: its prompts, choices and metrics, whatever columns a file has."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml

from bitdistiller.data.rows import Row, load_rows
from bitdistiller.errors import InputError
from bitdistiller.stages.files import json_line, write_text

DEFINITIONS = Path(lm_eval.tasks.__file__).parent
NO_YES = ("no", "yes")
"""The choices of a question that comes without."""
SUBJECTS = "mmlu/default/mmlu_{}.yaml"


@dataclass(frozen=True)
class Official:
    """
    One of lm-eval's tasks.

    definition: its file below lm-eval's own. split, examples: the splits of the questions and of few-shot examples.
    columns: those that its hub dataset has; `adapt` makes them of a row with `choices` and `gold`.
    """

    definition: str
    split: str
    examples: str
    columns: tuple[str, ...]
    adapt: Callable[[Row], Row]


def _labelled(row: Row) -> Row:
    labels = list(string.ascii_uppercase[: len(row["choices"])])
    return {"choices": {"text": list(row["choices"]), "label": labels}, "answerKey": labels[row["gold"]]}


def _arc(row: Row) -> Row:
    return _labelled(row) | {"question": row["question"]}


def _openbookqa(row: Row) -> Row:
    return _labelled(row) | {"question_stem": row["question"]}


def _piqa(row: Row) -> Row:
    first, second = row["choices"]
    return {"goal": row["goal"], "sol1": first, "sol2": second, "label": row["gold"]}


def _hellaswag(row: Row) -> Row:
    activity, _, context = row["query"].partition(": ")
    start = {"activity_label": activity, "ctx_a": context, "ctx_b": ""}
    return start | {"endings": list(row["choices"]), "label": str(row["gold"])}


def _winogrande(row: Row) -> Row:
    first, second = row["choices"]
    return {"sentence": row["sentence"], "option1": first, "option2": second, "answer": str(row["gold"] + 1)}


def _boolq(row: Row) -> Row:
    return {"passage": row["passage"], "question": row["question"], "label": int(row["gold"])}


def _social_iqa(row: Row) -> Row:
    context, _, question = row["question"].partition(" ")
    names = ("answerA", "answerB", "answerC")
    answers = dict(zip(names, row["choices"], strict=True))
    return {"context": context, "question": question, "label": str(row["gold"] + 1)} | answers


def _mmlu(row: Row) -> Row:
    return {"question": row["question"], "choices": list(row["choices"]), "answer": row["gold"]}


ARC = ("question", "choices", "answerKey")
TASKS: dict[str, Official] = {
    "arc_easy": Official("arc/arc_easy.yaml", "test", "train", ARC, _arc),
    "arc_challenge": Official("arc/arc_challenge.yaml", "test", "train", ARC, _arc),
    "boolq": Official("super_glue/boolq/default.yaml", "validation", "train", ("passage", "question", "label"), _boolq),
    "hellaswag": Official(
        "hellaswag/hellaswag.yaml",
        "validation",
        "train",
        ("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        _hellaswag,
    ),
    "mmlu": Official(SUBJECTS, "test", "dev", ("question", "subject", "choices", "answer"), _mmlu),
    "openbookqa": Official(
        "openbookqa/openbookqa.yaml", "test", "train", ("question_stem", "choices", "answerKey"), _openbookqa
    ),
    "piqa": Official("piqa/piqa.yaml", "validation", "train", ("goal", "sol1", "sol2", "label"), _piqa),
    "social_iqa": Official(
        "siqa/siqa.yaml",
        "validation",
        "train",
        ("context", "question", "answerA", "answerB", "answerC", "label"),
        _social_iqa,
    ),
    "winogrande": Official(
        "winogrande/default.yaml", "validation", "train", ("sentence", "option1", "option2", "answer"), _winogrande
    ),
}


def write_tasks(name: str, path: Path, few_shot: int, folder: Path) -> list[str]:
    """
    Write the task `name` on local data into `folder`; returns the names of what it consists of.

    path: a file with the questions, or a directory with a file for each split (`test.jsonl.gz`, `dev.parquet`, ...).
    Of a single file the few-shot examples are other questions of the file. Raises InputError for rows with other
    columns, subjects that lm-eval does not have, and a split that is missing.
    """
    task = TASKS[name]
    splits = {task.split: split_file(path, task.split)}
    if few_shot and path.is_dir():
        splits[task.examples] = split_file(path, task.examples)
    rows = {split: _official_rows(task, name, file) for split, file in splits.items()}
    parts = dict(_parts(name, task, rows))
    for part, (definition, of_part) in parts.items():
        _write(folder, part, definition, of_part, task)
    return list(parts)


def split_file(path: Path, split: str) -> Path:
    """The file of a split; of a single file, itself."""
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.name.partition(".")[0] == split)
    if len(found) != 1:
        there = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
        raise InputError(f"{path}: one file {split}.* is needed; it holds {there}")
    return found[0]


def _official_rows(task: Official, name: str, file: Path) -> list[Row]:
    return [_official(task, name, row, index) for index, row in enumerate(load_rows(file))]


def _official(task: Official, name: str, row: Row, index: int) -> Row:
    named = {key: row[key] for key in ("id", "subject") if key in row}
    if all(key in row for key in task.columns) and "gold" not in row:
        return row
    try:
        if row["gold"] not in range(len(row.get("choices", NO_YES))):
            raise ValueError
        return named | task.adapt(row)
    except (KeyError, ValueError, IndexError, TypeError, AttributeError):
        theirs = ", ".join(task.columns)
        raise InputError(
            f"task {name}: row {index} has the columns {', '.join(map(str, row))}; accepted: {theirs}, or the question "
            "with `choices`, a list, and `gold`, a number within it"
        ) from None


def _parts(name: str, task: Official, rows: dict[str, list[Row]]) -> Iterator[tuple[str, tuple[Path, Any]]]:
    """Every task that `name` consists of, with its definition and its rows by split."""
    if task.definition != SUBJECTS:
        yield name, (DEFINITIONS / task.definition, rows)
        return
    for subject in dict.fromkeys(str(row.get("subject")) for row in rows[task.split]):
        definition = DEFINITIONS / SUBJECTS.format(subject)
        if not definition.is_file():
            raise InputError(f"task {name}: lm-eval has no subject {subject!r}")
        of_subject = {key: [row for row in value if str(row.get("subject")) == subject] for key, value in rows.items()}
        empty = [split for split, value in of_subject.items() if not value]
        if empty:
            raise InputError(f"task {name}: the split {empty[0]} has no question of the subject {subject!r}")
        yield f"{name}_{subject}", (definition, of_subject)


def _write(folder: Path, name: str, definition: Path, rows: dict[str, list[Row]], task: Official) -> None:
    files = {split: folder / f"{name}.{split}.jsonl" for split in rows}
    for split, file in files.items():
        write_text(file, "".join(map(json_line, rows[split])))
    examples = task.examples if task.examples in rows else task.split
    splits = {f"{split}_split": split if split in rows else None for split in ("training", "validation", "test")}
    splits |= {"training_split": None, f"{task.split}_split": task.split, "fewshot_split": examples}
    content = {
        "include": str(definition),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(file.absolute()) for split, file in files.items()},
            "cache_dir": str((folder / "datasets").absolute()),
        },
        **splits,
    }
    write_text(folder / f"{name}.yaml", yaml.safe_dump(content))

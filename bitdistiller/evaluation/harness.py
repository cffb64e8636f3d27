"""Multiple choice by log-likelihood, through lm-eval."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from bitdistiller.config import MultipleChoiceEvaluation
from bitdistiller.data.rows import Row, column, load_rows
from bitdistiller.errors import InputError
from bitdistiller.evaluation import official
from bitdistiller.evaluation.batches import Record, in_batches, slices, total
from bitdistiller.evaluation.metrics import Metric, proportion
from bitdistiller.evaluation.subject import Subject
from bitdistiller.stages import Stage
from bitdistiller.stages.files import json_line, write_text

METRICS = ("acc", "acc_norm")
REQUESTS_PER_BATCH = 256
FEW_SHOT_SEED = 1234  # lm-eval's own
QUIET = ("lm_eval", "datasets")


class StagedModel(HFLM):
    """
    lm-eval's model, whose log-likelihoods are computed in fixed batches that survive a kill.

    `separate`: context and continuation are tokenised each by itself and without special tokens.
    """

    def __init__(self, stage: Stage, subject: Subject, batch_size: int, separate: bool = False) -> None:
        super().__init__(
            pretrained=subject.model,
            tokenizer=subject.tokenizer,
            batch_size=batch_size,
            max_length=subject.context,
            softmax_dtype="float32",
        )
        self.stage = stage
        self.separate = separate

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each continuation, and whether it is the greedy one."""

        def work(batch: Sequence[Any]) -> list[Record]:
            found = super(StagedModel, self).loglikelihood(list(batch), disable_tqdm=True)
            return [{"log_likelihood": float(value), "greedy": bool(greedy)} for value, greedy in found]

        records = in_batches(self.stage, "choices", slices(requests, REQUESTS_PER_BATCH), work, "choice")
        return [(record["log_likelihood"], record["greedy"]) for record in records]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """
        Token ids of a context and of what follows it.

        Where a tokenizer draws the end of the context and all that follows into one token (unknown characters without
        byte fallback, say), lm-eval takes its probability for 1, or stops; here such a continuation is tokenised by
        itself.
        """
        before, after = ([], []) if self.separate else super()._encode_pair(context, continuation)
        if self.separate:
            before = self.tokenizer.encode(context, add_special_tokens=False)
        after = after or self.tokenizer.encode(continuation, add_special_tokens=False)
        if not after:
            raise InputError(f"the choice {continuation!r} has no token in this model's vocabulary")
        return before, after

    def get_model_info(self) -> dict[str, Any]:
        """Nothing: lm-eval would ask the hub."""
        return {}


def predict(stage: Stage, evaluation: MultipleChoiceEvaluation, subject: Subject) -> tuple[list[Record], Record]:
    """
    One record per item: task, id, right choice, each choice's log-likelihood in nats, and lm-eval's metrics of it.

    Raises InputError for an unknown task, or one that is not multiple choice.
    """
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    tasks = load_tasks(stage.work, evaluation)
    lm = StagedModel(stage, subject, evaluation.batch_size, separate=evaluation.scoring == "legacy")
    everything = sum(len(task.eval_docs) for task in tasks["tasks"].values())
    results = evaluate(lm, tasks, limit=evaluation.max_items, bootstrap_iters=0, log_samples=True)
    records = [record(task, sample) for task, samples in sorted(results["samples"].items()) for sample in samples]
    if any(evaluation.metric not in entry for entry in records):
        raise InputError(f"task {evaluation.task} has no metric {evaluation.metric}; see lm-eval for what it has")
    return records, protocol(evaluation, tasks) | total(len(records), everything)


def protocol(evaluation: MultipleChoiceEvaluation, tasks: dict[str, Any]) -> Record:
    """How it was measured, with the versions of lm-eval and of its task where the task is lm-eval's."""
    chosen = {"task": evaluation.task, "few_shot": evaluation.few_shot, "metric": evaluation.metric}
    chosen |= {"scoring": evaluation.scoring} if evaluation.scoring != "standard" else {}
    versions = {str(task.VERSION) for task in tasks["tasks"].values()}
    own = evaluation.path is not None and evaluation.task not in official.TASKS
    return chosen if own else chosen | {"task_version": ", ".join(sorted(versions)), "lm_eval": version("lm_eval")}


def measure(records: Sequence[Record], _: MultipleChoiceEvaluation) -> dict[str, Metric]:
    """`acc`, and `acc_norm` (log-likelihood per byte) where the task has it, over all items of all subtasks."""
    names = [name for name in METRICS if all(name in entry for entry in records)]
    return {name: proportion([entry[name] for entry in records], "questions") for name in names}


def record(task: str, sample: dict[str, Any]) -> Record:
    """One line of the predictions from what lm-eval logged about an item."""
    values = {name: float(sample[name]) for name in METRICS if name in sample}
    return {
        "task": task,
        "id": sample["doc"].get("id", sample["doc_id"]),
        "gold": sample["target"],
        "log_likelihoods": [response[0] for response in sample["filtered_resps"]],
        **values,
    }


def load_tasks(work: Path, evaluation: MultipleChoiceEvaluation) -> dict[str, Any]:
    """The task with its data, as lm-eval loads it; raises InputError when there is no such task or no data."""
    manager, names = task_manager(work, evaluation)
    if names[0] not in manager.all_tasks:
        raise InputError(f"task: lm-eval has no task {evaluation.task!r}; for questions of your own give a path")
    try:
        loaded = manager.load(names)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"task {evaluation.task}: its data cannot be loaded ({reason}); give a local path") from error
    for task in loaded["tasks"].values():
        task.set_config(key="num_fewshot", value=evaluation.few_shot)
        task.set_fewshot_seed(FEW_SHOT_SEED)
    return loaded


def task_manager(work: Path, evaluation: MultipleChoiceEvaluation) -> tuple[TaskManager, list[str]]:
    """What loads the task, and the names of what it consists of."""
    if evaluation.path is None:
        return TaskManager(), [evaluation.task]
    if evaluation.task not in official.TASKS:
        return local_task(work, evaluation), [evaluation.task]
    folder = work / "task"
    names = official.write_tasks(evaluation.task, evaluation.path, evaluation.few_shot, folder)
    return TaskManager(include_path=str(folder), include_defaults=False), names


def local_task(work: Path, evaluation: MultipleChoiceEvaluation) -> TaskManager:
    """A task of its own for the local file: one item is a context, its choices and the number of the right one."""
    assert evaluation.path is not None
    folder = work / "task"
    items = [_item(row, index) for index, row in enumerate(load_rows(evaluation.path))]
    write_text(folder / "items.jsonl", "".join(map(json_line, items)))
    task = {
        "task": evaluation.task,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str((folder / "items.jsonl").absolute())},
            "cache_dir": str((work / "datasets").absolute()),
        },
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS],
    }
    write_text(folder / "task.yaml", yaml.safe_dump(task))
    return TaskManager(include_path=str(folder), include_defaults=False)


def _item(row: Row, index: int) -> Row:
    """`query` is the context as it is; `question` (or `goal`) is asked as in lm-eval's ARC and PIQA."""
    text = column(row, "query", "question", "goal", where="multiple choice")
    context = text if row.get("query") is not None else f"Question: {text}\nAnswer:"
    choices, gold = row.get("choices"), row.get("gold")
    if not isinstance(choices, list) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise InputError(f"multiple choice: row {index} needs `choices`, a list, and `gold`, a number within it")
    return {"id": str(row.get("id", index)), "context": context, "choices": list(map(str, choices)), "gold": gold}

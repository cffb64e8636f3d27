"""A cached teacher says what the live one says, whatever the layout and the shards."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from bitdistiller.config import Training
from bitdistiller.distillation.cache.reader import Cache
from bitdistiller.distillation.losses.base import IGNORE
from bitdistiller.distillation.steps import Steps
from bitdistiller.distillation.teacher import LiveTeacher, open_teacher

LAYOUTS = ("packed", "grouped", "padded")


def training(kind="hidden", **changes):
    settings = {"batch_size": 12, "micro_batch_size": 4, "max_length": 32, "precision": "float32"}
    kept = {"kind": kind, "k": changes.pop("k", 32)}
    return Training(**{**settings, "teacher": "cached", "cache": kept, **changes})


def batches(file, layout, recipe):
    steps = Steps(file, recipe, layout)
    held_out = steps.evaluation_batches()
    return [batch for step in range(3) for batch in steps.micro_batches(step)] + held_out


def log_p(signal, count):
    return signal.rows(torch.arange(count))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_hidden_states_are_those_of_the_live_teacher(tiny_model, file, cache, layout, precision):
    recipe = training(precision=precision)
    live = open_teacher(recipe.model_copy(update={"teacher": "live"}), tiny_model)
    cached = open_teacher(recipe, tiny_model, cache(shards=3, precision=precision))
    assert isinstance(live, LiveTeacher)
    for batch in batches(file, layout, recipe):
        keep = (batch.labels != IGNORE) & (torch.rand(batch.labels.shape) < 0.7)
        expected, found = live.signal(batch, keep), cached.signal(batch, keep)
        assert found.hidden.dtype == getattr(torch, precision)
        tolerance = 1e-4 if precision == "float32" else 0.05
        torch.testing.assert_close(found.hidden, expected.hidden, atol=tolerance, rtol=tolerance)
        assert torch.equal(found.head.weight, expected.head.weight)
        assert found.head.vocabulary == expected.head.vocabulary


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_most_probable_tokens_and_the_rest(tiny_model, file, cache, layout):
    recipe = training("topk", k=5)
    cached = open_teacher(recipe, tiny_model, cache(kind="topk", k=5))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for batch in batches(file, layout, recipe)[:4]:
        keep = batch.labels != IGNORE
        with torch.no_grad():
            full = model(**batch.model_inputs).logits[keep].log_softmax(-1)
        signal, targets = cached.signal(batch, keep), batch.targets[keep]
        order = full.sort(descending=True).values
        rows = log_p(signal, len(full))
        torch.testing.assert_close(rows[:, :5], order[:, :5], atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(rows[:, 5], order[:, 5:].logsumexp(-1), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(full.gather(-1, signal.ids), order[:, :5], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(signal.top_log_probability(), order[:, 0], atol=2e-3, rtol=1e-3)
        label = full.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1).masked_fill(targets < 0, 0)
        torch.testing.assert_close(signal.label_log_probability(targets), label, atol=1e-4, rtol=1e-4)


def test_more_tokens_than_the_vocabulary_keep_all_but_the_rest(tiny_model, file, cache):
    recipe = training("topk", k=1000)
    (batch, *_) = batches(file, "grouped", recipe)
    keep = batch.labels != IGNORE
    rows = log_p(open_teacher(recipe, tiny_model, cache(kind="topk", k=1000)).signal(batch, keep), int(keep.sum()))
    assert rows.shape[1] == file.counts["vocabulary_size"]
    assert torch.isfinite(rows).all()
    torch.testing.assert_close(rows.exp().sum(-1), torch.ones(len(rows)), atol=2e-3, rtol=0)


def test_a_process_without_work_gets_a_signal_about_nothing(tiny_model, file, cache):
    recipe = training(batch_size=4, micro_batch_size=4)
    empty = Steps(file, recipe, "packed").micro_batches(0, rank=7, processes=8)[0]
    for kept in (recipe, training("topk")):
        teacher = open_teacher(kept, tiny_model, cache(kept.cache.kind, kind=kept.cache.kind))
        assert len(log_p(teacher.signal(empty, empty.labels != IGNORE), 0)) == 0


def test_shards_hold_every_sample_once(file, cache):
    whole, parts = Cache(cache("one")), Cache(cache("three", shards=3))
    for sample in range(len(file)):
        torch.testing.assert_close(whole.read("hidden", [sample]), parts.read("hidden", [sample]), atol=1e-4, rtol=1e-4)
        assert sample in whole
    several = whole.read("hidden", [7, 3])
    assert torch.equal(several, torch.cat([whole.read("hidden", [7]), whole.read("hidden", [3])]))
    assert len(file) not in whole

"""Runs of methods without groups of weights: what they take, what they are called in tables, what is refused early."""

import json

import pytest

from bitdistiller.config import Experiment
from bitdistiller.errors import InputError
from bitdistiller.plan import Plan
from bitdistiller.recipes import parse
from bitdistiller.reporting.published import Published
from bitdistiller.reporting.runs import identify

TRAINED = {"mix": "x", "training": "t"}


@pytest.fixture
def experiment(tmp_path):
    """`experiment(run, evaluation=..., **config)`: an experiment of one run on a local model."""

    def make(run, evaluation=None, **config):
        path = tmp_path / "m"
        path.mkdir(exist_ok=True)
        shape = {"hidden_size": 128, "intermediate_size": 384, "vocab_size": 100, **config}
        (path / "config.json").write_text(json.dumps(shape))
        content = {
            "models": {"m": {"path": str(path), "title": "LLaMA-7B"}},
            "mixes": {"x": {"teacher": "m", "sources": [{"dataset": "vocabulary"}]}},
            "trainings": {"t": {}},
            "evaluations": {"e": evaluation or {"kind": "perplexity", "dataset": "wikitext2"}},
            "runs": {"r": {"model": "m", **TRAINED, **run}},
        }
        return parse(Experiment, content, "config")

    return make


ONEBIT, LLM_QAT = {"method": "onebit"}, {"method": "llm-qat", "format": "4-8-4"}


@pytest.mark.parametrize(
    ("run", "row", "paper", "metric", "number"),
    [
        (ONEBIT, ("OneBit", "SIGN1", 1), "onebit", "ppl", "10.20"),
        (LLM_QAT, ("LLM-QAT", "4-8-4", 4), "llm-qat", "boolq", "72.4"),
        ({**LLM_QAT, "format": "8-8-16"}, ("LLM-QAT", "8-8-16", 8), "llm-qat", "avg", "65.9"),
    ],
)
def test_their_rows_stand_beside_the_published_ones(experiment, run, row, paper, metric, number):
    identity = identify(experiment(run), "r")
    assert (identity.method_title, identity.format, identity.bits) == row
    assert identity.group_size is None
    found = Published(paper).find(
        model=identity.model_title,
        metric=metric,
        method=identity.method_title,
        bits=identity.bits,
        number_format=identity.quantised_format,
        group_size=identity.group_size,
    )
    assert found.text == number


def test_recipes_have_the_format_alone(experiment):
    for run, name in ((ONEBIT, "sign1"), (LLM_QAT, "4-8-4")):
        plan = Plan(experiment(run))
        assert plan.train_recipe("r").quantization.record == {"format": name}
        assert plan.train_inputs("r") == []
        assert plan.export_recipe("r").quantization.format == name


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({**ONEBIT, "format": "int2"}, "method onebit takes no format"),
        ({**ONEBIT, "group_size": 64}, "method onebit takes no group_size: it has no groups"),
        ({**ONEBIT, "layouts": ["dense"]}, "method onebit takes no layouts"),
        ({**LLM_QAT, "layouts": ["dense"]}, "method llm-qat takes no layout dense; accepted: compressed-tensors"),
        (
            {**LLM_QAT, "layouts": ["compressed-tensors"]},
            "layout compressed-tensors does not hold 4-8-4; accepted: weig",
        ),
        ({**ONEBIT, "calibration": "c"}, "method onebit takes no calibration"),
        (
            {**LLM_QAT, "format": "int4"},
            "method llm-qat has no format int4; accepted: bits of weights, activations",
        ),
        ({**LLM_QAT, "pad": True}, "method llm-qat takes no pad"),
        ({"method": "llm-qat"}, "method llm-qat needs format"),
        ({"method": "rtn", "format": "4-8-4", "mix": None, "training": None}, "method rtn has no format 4-8-4"),
        ({"method": "distilled", "format": "sign1"}, "unknown 'sign1'"),
    ],
)
def test_what_they_do_not_take(experiment, run, message):
    with pytest.raises(InputError, match=message):
        experiment(run)


def test_llm_qat_has_a_layout_for_vllm(experiment):
    plan = Plan(experiment({**LLM_QAT, "format": "8-8-16", "layouts": ["compressed-tensors"]}))
    assert [path.name for path in plan.conversions] == ["compressed-tensors"]


def test_signs_need_whole_bytes_before_the_first_job(experiment):
    with pytest.raises(InputError, match=r"runs.r: intermediate_size 380 of model m; signs need a multiple of 8"):
        Plan(experiment(ONEBIT, intermediate_size=380)).check()
    Plan(experiment(LLM_QAT, intermediate_size=380)).check()


def test_vllm_does_not_serve_them(experiment):
    evaluation = {"kind": "math", "dataset": "gsm8k", "engine": "vllm"}
    with pytest.raises(InputError, match=r"evaluations.e.engine: vllm does not serve runs.r: .*accepted: auto"):
        Plan(experiment(ONEBIT, evaluation)).check()


def test_blocks_have_a_token_file_of_their_own(experiment):
    plain = Plan(experiment(ONEBIT))
    content = plain.experiment.model_copy(
        update={"trainings": {"t": plain.experiment.trainings["t"].model_copy(update={"blocks": True})}}
    )
    assert (plain.tokens_name("r"), Plan(content).tokens_name("r")) == ("tokens-1024", "tokens-1024-blocks")
    assert Plan(content).tokenize_recipe("r").blocks

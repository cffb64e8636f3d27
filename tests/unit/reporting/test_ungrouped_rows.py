"""Rows of methods without groups of weights are quantised ones: in plots, and on model cards."""

import pandas as pd
import pytest
from jinja2 import Environment, PackageLoader, StrictUndefined
from result_trees import RUNS, write_run

from bitdistiller.config import mixed_bits
from bitdistiller.plan import Plan
from bitdistiller.reporting.history import GammaFile
from bitdistiller.reporting.plots import perplexity_vs_bits
from bitdistiller.reporting.runs import unquantised
from bitdistiller.reporting.tidy import COLUMNS

ROWS = [
    {"run": "full", "method": "Full precision", "format": "FP32", "bits": 32, "bits_per_weight": 32.0, "value": 2.6},
    {"run": "one", "method": "OneBit", "format": "SIGN1", "bits": 1, "bits_per_weight": 1.4, "value": 4.4},
    {"run": "mixed", "method": "LLM-QAT", "format": "4-8-4", "bits": 4, "bits_per_weight": 4.2, "value": 2.7},
]


def frame():
    same = {"model": "m", "model_title": "M", "evaluation": "e", "label": "PPL", "kind": "perplexity"}
    same |= {"metric": "perplexity", "main": True, "quantity": "perplexity"}
    return pd.DataFrame([same | row for row in ROWS], columns=list(COLUMNS)).astype(
        {name: kind for name, kind in COLUMNS.items() if kind not in ("bool", "str")}
    )


def test_they_are_not_the_unquantised_model():
    assert unquantised(frame()).tolist() == [True, False, False]


def test_they_have_points_of_their_own_in_the_plots():
    figure = perplexity_vs_bits(frame())
    texts = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert [text for text in texts if text.startswith(("OneBit SIGN1", "LLM-QAT 4-8-4"))]
    assert len([text for text in texts if "Full precision" in text]) == 1
    assert not [text for text in texts if text in ("OneBit 4.40", "LLM-QAT 2.70")]


def test_a_gamma_that_no_loss_uses_is_not_shown():
    assert GammaFile(gamma=0.5, definition="not used by the loss forward").used is None
    assert GammaFile(gamma=0.7, definition="paper").used == 0.7
    assert GammaFile(gamma=0.7).used == 0.7


@pytest.mark.parametrize(
    ("grouped", "bits", "sentence"),
    [
        (True, None, "groups of 128 weights, by BitDistiller"),
        (False, mixed_bits("4-8-4"), "quantised to 8 bits, keys and values to 4 bits, with a scale for each token"),
        (False, mixed_bits("4-32-32"), "not quantised, keys and values not, with"),
        (False, None, "the signs of the weights are kept, between two vectors"),
    ],
)
def test_cards_say_what_was_quantised(experiment, tmp_path, grouped, bits, sentence):
    from bitdistiller.reporting.collect import collect
    from bitdistiller.reporting.runs import identify

    run = next(name for name in RUNS if experiment.runs[name].method == "bitdistiller")
    write_run(tmp_path / "results", run)
    environment = Environment(
        loader=PackageLoader("bitdistiller.reporting"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    collected = collect(experiment, tmp_path / "results")
    assert Plan(experiment).method(run).grouped
    text = environment.get_template("card.md").render(
        identity=identify(experiment, run),
        run=experiment.runs[run],
        origin="M",
        front="",
        licence="",
        model=None,
        served=False,
        grouped=grouped,
        bits=bits,
        zero_signs=None if grouped or bits else 3,
        export=collected.exports[run],
        scores=[],
        sources=[],
        recipe="",
        weights=[],
    )
    assert sentence in text.replace("\n", " ")
    assert ("Weights of exactly 0, which count as +1 | 3" in text) is (not grouped and bits is None)

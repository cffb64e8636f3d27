"""Sequences that share a row do not see each other, whatever lies beside them."""

import pytest
import torch
from helpers.architectures import ARCHITECTURES, build
from helpers.tokens import write_token_file

from bitdistiller.config import Training
from bitdistiller.distillation.packing import choose_layout, supports_packing
from bitdistiller.distillation.steps import Steps
from bitdistiller.errors import InputError


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    lengths = [3, 17, 9, 12, 5, 20, 7, 2, 11]
    return write_token_file(tmp_path_factory.mktemp("tokens") / "t", lengths, vocabulary=80)


def hidden_states(model, batch):
    """{sample: hidden states (length, hidden)}."""
    with torch.no_grad():
        hidden = model.base_model(**batch.model_inputs).last_hidden_state
    return {sample: hidden[batch.sequence == index] for index, sample in enumerate(batch.samples)}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hidden_states_are_those_of_the_sequence_alone(architecture, attention, file):
    model = build(architecture)
    model.set_attn_implementation(attention)
    assert supports_packing(model)
    settings = {"batch_size": 16, "micro_batch_size": 4, "max_length": 24, "evaluation_fraction": 0}
    batches = Steps(file, Training(**settings), "packed").micro_batches(0)
    assert max(len(batch.samples) / len(batch.input_ids) for batch in batches) > 1
    for batch in batches:
        for sample, hidden in hidden_states(model, batch).items():
            with torch.no_grad():
                alone = model.base_model(file.ids(sample).unsqueeze(0), use_cache=False).last_hidden_state[0]
            torch.testing.assert_close(hidden, alone, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_question_is_answered_in_other_precisions(dtype):
    assert supports_packing(build("llama", dtype=dtype))


class Leaky(torch.nn.Module):
    """A model whose attention ignores positions and so sees all of the row."""

    def __init__(self, model):
        super().__init__()
        self.config, self.inner = model.config, model.base_model

    @property
    def base_model(self):
        return self

    def forward(self, input_ids, position_ids=None, **arguments):
        return self.inner(input_ids=input_ids, **arguments)


def test_a_model_that_lets_sequences_see_each_other_is_found_out():
    leaky = Leaky(build("llama")).train()
    assert not supports_packing(leaky)
    assert leaky.training
    assert choose_layout("auto", leaky) == "grouped"
    assert choose_layout("padded", leaky) == "padded"
    assert choose_layout("auto", build("qwen3"), leaky) == "grouped"
    assert choose_layout("auto", build("qwen3"), build("llama")) == "packed"
    with pytest.raises(InputError, match=r"training\.batching: packed: the attention of Leaky does not keep sequences"):
        choose_layout("packed", leaky)


def test_a_model_that_fails_on_packed_rows_does_not_support_them(monkeypatch):
    model = build("llama")
    monkeypatch.setattr(model.base_model, "forward", lambda **_: (_ for _ in ()).throw(ValueError("no position ids")))
    assert not supports_packing(model)

"""Heads: read from models and from files, with what their configurations declare, checked against the model."""

import pytest
import torch
import transformers
from helpers.tiny import VOCABULARY, make_model

from bitdistiller.distillation.heads import Head, check_head, common_vocabulary, read_head
from bitdistiller.errors import InputError

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECLARED = {
    "Gemma2Config": ({"head_dim": 16, "final_logit_softcapping": 3.0}, 1.0, 3.0),
    "CohereConfig": ({"logit_scale": 0.25}, 0.25, None),
    "GraniteConfig": ({"logits_scaling": 8.0}, 0.125, None),
    "HyperCLOVAXConfig": ({"logits_scaling": 8.0}, 8.0, None),
    "MptConfig": ({"d_model": 32, "n_heads": 2, "n_layers": 1, "logit_scale": 2.0}, 1.0, None),
    "GPTNeoXConfig": ({}, 1.0, None),
    "PhiConfig": ({}, 1.0, None),
}


def build(name, **changes):
    if not hasattr(transformers, name):
        pytest.skip(f"this version of transformers has no {name}")
    torch.manual_seed(0)
    config = getattr(transformers, name)(**{**SHAPE, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.get_output_embeddings().parameters():
            parameter.normal_(std=0.5)
    return model


@pytest.mark.parametrize("name", DECLARED)
def test_scale_and_softcap_are_those_of_the_architecture(name, tmp_path):
    changes, scale, softcap = DECLARED[name]
    model = build(name, **changes)
    head = Head.of(model)
    assert (head.scale, head.softcap, head.vocabulary) == (scale, softcap, 40)
    check_head(model, head)
    model.save_pretrained(tmp_path)
    read = read_head(tmp_path, torch.float32)
    assert torch.equal(read.weight, head.weight)
    assert (read.bias is None) == (head.bias is None)
    assert (read.scale, read.softcap, read.vocabulary) == (scale, softcap, 40)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_is_read_alone_tied_or_not(tied, tmp_path):
    model = make_model(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    head = read_head(tmp_path, torch.bfloat16)
    assert torch.equal(head.weight, model.lm_head.weight.bfloat16())
    assert head.vocabulary == VOCABULARY
    assert Head.of(model).weight is model.get_output_embeddings().weight


def test_an_architecture_that_does_more_to_its_logits_is_refused():
    model = make_model()
    original = model.lm_head.forward
    model.lm_head.forward = lambda hidden: original(hidden) * 1.01
    with pytest.raises(InputError, match=r"^model type llama: its logits are not its output embedding's products"):
        check_head(model.train(), Head.of(model))
    assert model.training


def test_rounding_in_bfloat16_is_accepted():
    model = make_model().bfloat16()
    check_head(model, Head.of(model))


def test_a_model_without_a_head_is_refused():
    with pytest.raises(InputError, match="model type llama has no linear output embedding"):
        Head.of(make_model().model)


def test_a_directory_without_weights_is_refused(tmp_path):
    make_model().config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        read_head(tmp_path, torch.float32)


def test_heads_padded_differently_share_the_smaller_vocabulary():
    small, large = (Head(torch.randn(rows, 4), torch.randn(rows), None, 1.0, rows) for rows in (6, 8))
    assert [head.vocabulary for head in common_vocabulary(large, small)] == [6, 6]
    hidden = torch.randn(3, 4)
    cut = large.cut(6)
    torch.testing.assert_close(cut.logits(hidden), large.logits(hidden)[:, :6])
    assert cut.to(torch.bfloat16).weight.shape == (6, 4)

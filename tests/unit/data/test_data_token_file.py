"""The stage `tokenize`: what encode_record makes of every record, in one mapped file."""

import numpy as np
import pytest
import torch
from helpers.mixes import write_mix
from helpers.tiny import make_tokenizer
from safetensors.torch import save_file

from bitdistiller.config import TokenizeRecipe
from bitdistiller.data.mapped import MappedTensors
from bitdistiller.data.tokenising import encode_record, vocabulary_digest
from bitdistiller.data.tokenize_stage import run
from bitdistiller.data.tokens import TokenFile
from bitdistiller.errors import InputError
from bitdistiller.stages.files import read_json, read_json_lines


def tokenize(model, mix, output, max_length=32):
    run(TokenizeRecipe(max_length=max_length), model=model, mix=mix, output=output, work=None, time_budget=None)
    return TokenFile(output)


@pytest.mark.parametrize("max_length", [7, 32])
def test_every_record_as_encoded(tiny_model, tmp_path, max_length):
    mix = write_mix(tmp_path / "mix")
    file = tokenize(tiny_model, mix, tmp_path / "tokens", max_length)
    tokenizer = make_tokenizer()
    records = [encode_record(tokenizer, record, max_length) for record in read_json_lines(mix / "mix.jsonl")]
    assert [file.sequence(sample) for sample in range(len(file))] == records
    assert file.ids(3).dtype == torch.int64
    assert file.lengths.tolist() == [len(record.input_ids) for record in records]
    assert file.counts == {
        "samples": len(records),
        "tokens": int(file.lengths.sum()),
        "longest": max(file.lengths),
        "max_length": max_length,
        "pad": 0,
        "vocabulary": vocabulary_digest(tokenizer),
        "vocabulary_size": len(tokenizer),
    }
    assert file.pad == 0


def test_another_vocabulary_is_refused(tiny_model, tmp_path):
    mix = write_mix(tmp_path / "mix", vocabulary="another")
    with pytest.raises(InputError) as error:
        tokenize(tiny_model, mix, tmp_path / "tokens")
    assert str(error.value) == f"tokenize: the mix {mix} was written with another vocabulary than that of {tiny_model}"
    with pytest.raises(InputError, match="--mix takes the output directory of the stage mix"):
        tokenize(tiny_model, tmp_path, tmp_path / "tokens")


def test_a_damaged_mix_is_refused(tiny_model, tmp_path):
    mix = write_mix(tmp_path / "mix")
    with (mix / "mix.jsonl").open("a") as handle:
        handle.write("{}\n")
    with pytest.raises(InputError, match="damaged"):
        tokenize(tiny_model, mix, tmp_path / "tokens")


def test_what_is_no_token_file(tmp_path):
    with pytest.raises(InputError, match="not a finished token file; give the output directory of the stage tokenize"):
        TokenFile(tmp_path)


def test_the_same_mix_gives_the_same_bytes(tiny_model, tmp_path):
    mix = write_mix(tmp_path / "mix")
    for name in ("a", "b"):
        tokenize(tiny_model, mix, tmp_path / name)
    assert read_json(tmp_path / "a" / "digest.json") == read_json(tmp_path / "b" / "digest.json")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32, torch.int64, torch.uint8, torch.float16])
def test_mapped_tensors(tmp_path, dtype):
    tensors = {"x": (torch.arange(24).view(6, 4) / 2).to(dtype), "none": torch.empty(0, 4, dtype=dtype)}
    save_file(tensors, tmp_path / "x.safetensors")
    mapped = MappedTensors(tmp_path / "x.safetensors")
    assert "x" in mapped
    assert "y" not in mapped
    assert isinstance(mapped.array("x"), np.memmap)
    assert torch.equal(mapped.rows("x", 2, 5), tensors["x"][2:5])
    assert mapped.rows("x", 2, 5).dtype == dtype
    assert mapped.rows("none", 0, 0).shape == (0, 4)

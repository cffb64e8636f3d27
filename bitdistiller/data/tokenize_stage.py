"""The stage `tokenize`: a mix in, its token file out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bitdistiller.config import TokenizeRecipe
from bitdistiller.data.fetch import check_layout
from bitdistiller.data.stage import MIX
from bitdistiller.data.tokenising import cut_blocks, encode_record, vocabulary_digest, vocabulary_size
from bitdistiller.data.tokens import TOKENS, write_tokens
from bitdistiller.errors import InputError
from bitdistiller.stages import DIGEST, open_stage, verify
from bitdistiller.stages.files import read_json, read_json_lines


def run(
    recipe: TokenizeRecipe, *, model: Path, mix: Path, output: Path, work: Path | None, time_budget: float | None
) -> None:
    """Encode every record of the mix with the tokenizer of `model`, the student, cut at `recipe.max_length` tokens or
    into blocks of as many."""
    from transformers import AutoTokenizer

    check_layout(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    vocabulary = check_vocabulary(tokenizer, model, mix)
    inputs = {"model": model, "mix": mix}
    with open_stage(
        "tokenize", version=1, recipe=recipe, inputs=inputs, output=output, work=work, time_budget=time_budget
    ) as stage:
        verify(mix)
        records = read_json_lines(mix / MIX)
        longest = sys.maxsize if recipe.blocks else recipe.max_length
        encoded = (encode_record(tokenizer, record, longest) for record in records)
        sequences = cut_blocks(encoded, recipe.max_length) if recipe.blocks else encoded
        counts: dict[str, Any] = write_tokens(stage.output_file(TOKENS), sequences)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        counts |= {"pad": pad, "vocabulary": vocabulary, "vocabulary_size": vocabulary_size(tokenizer)}
        stage.finish(counts=counts | {"max_length": recipe.max_length})


def check_vocabulary(tokenizer: Any, model: Path, mix: Path) -> str:
    """The digest of the tokenizer's vocabulary; raises InputError where the mix was written with another one."""
    own = vocabulary_digest(tokenizer)
    if not (mix / DIGEST).exists():
        raise InputError(f"tokenize: {mix / DIGEST} is missing; --mix takes the output directory of the stage mix")
    if read_json(mix / DIGEST)["counts"].get("vocabulary") != own:
        raise InputError(f"tokenize: the mix {mix} was written with another vocabulary than that of {model}")
    return own

"""Token files without a tokenizer: samples of given lengths whose ids say which sample they are of."""

from __future__ import annotations

from pathlib import Path

from bitdistiller.data.tokenising import Sequence
from bitdistiller.data.tokens import TOKENS, TokenFile, write_tokens
from bitdistiller.stages import open_stage

PAD = 0


def write_token_file(output: Path, lengths: list[int], vocabulary: int = 100, **counts: object) -> TokenFile:
    """A token file of samples of these lengths; the first half of each (at least one token) is its prompt."""
    with open_stage("tokenize", version=1, recipe={"lengths": lengths}, inputs={}, output=output) as stage:
        sequences = [
            Sequence([1 + (31 * sample + 7 * place) % (vocabulary - 1) for place in range(n)], max(n // 2, 1), n)
            for sample, n in enumerate(lengths)
        ]
        found = write_tokens(stage.output_file(TOKENS), sequences)
        stage.finish(counts={**found, "pad": PAD, "vocabulary": "v", "vocabulary_size": vocabulary, **counts})
    return TokenFile(output)

"""Token files without a tokenizer: given sequences, or samples of given lengths whose ids say which sample they are."""

from __future__ import annotations

from pathlib import Path

from bitdistiller.data.tokenising import Sequence
from bitdistiller.data.tokens import TOKENS, TokenFile, write_tokens
from bitdistiller.stages import open_stage

PAD = 0


def write_sequences(output: Path, sequences: list[Sequence], pad: int = PAD, **counts: object) -> TokenFile:
    """A token file of these sequences."""
    with open_stage("tokenize", version=1, recipe={"samples": len(sequences)}, inputs={}, output=output) as stage:
        found = write_tokens(stage.output_file(TOKENS), sequences)
        stage.finish(counts={**found, "pad": pad, "vocabulary": "v", **counts})
    return TokenFile(output)


def write_token_file(output: Path, lengths: list[int], vocabulary: int = 100, **counts: object) -> TokenFile:
    """A token file of samples of these lengths; the first half of each (at least one token) is its prompt."""
    sequences = [
        Sequence([1 + (31 * sample + 7 * place) % (vocabulary - 1) for place in range(n)], max(n // 2, 1), n)
        for sample, n in enumerate(lengths)
    ]
    return write_sequences(output, sequences, **{"vocabulary_size": vocabulary, **counts})

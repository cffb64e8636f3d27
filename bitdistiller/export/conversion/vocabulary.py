"""A `tokenizer.json` in the words of GGUF files: byte-level BPE, and BPE of SentencePiece's kind."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
from tokenizers import Tokenizer

from bitdistiller.export.conversion.unfit import Unfit
from bitdistiller.stages.files import read_json

logger = logging.getLogger(__name__)

CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPLIT = CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {None: "gpt-2", SPLIT % "{1,3}": "llama-bpe", SPLIT % "": "qwen2"}
"""The engine's name of a rule that splits text before the merges (None: that of byte-level BPE itself)."""
SPACE = "▁"


class Vocabulary:
    """The tokens of a model directory with their kinds, and how text is split into them."""

    def __init__(self, directory: Path, size: int) -> None:
        """`size`: rows of the embedding. Raises Unfit for a tokenizer that GGUF files cannot describe."""
        self.path = Path(directory) / "tokenizer.json"
        if not self.path.is_file():
            raise Unfit(f"{self.path}: no such file; a GGUF file holds its tokenizer")
        self._content, self.size = read_json(self.path), size
        self._model = self._content["model"]
        if self._model.get("type") != "BPE":
            raise Unfit(f"{self.path}: a tokenizer of type {self._model.get('type')}; accepted for GGUF: BPE")
        self._added = {token["id"]: token for token in self._content.get("added_tokens", [])}
        self.byte_level = any(part["type"] == "ByteLevel" for part in self._parts("pre_tokenizer"))
        self.split = self._known_split() if self.byte_level else None

    def describe(self, writer: gguf.GGUFWriter, config: Any) -> None:
        """Write the tokens, their kinds and merges, and what surrounds a text."""
        tokens = self.tokens()
        writer.add_tokenizer_model("gpt2" if self.byte_level else "llama")
        writer.add_token_list(tokens)
        writer.add_token_types([self._kind(number, token) for number, token in enumerate(tokens)])
        if self.byte_level:
            writer.add_tokenizer_pre(str(self.split))
            writer.add_token_merges([" ".join(pair) for pair in self.merges()])
        else:
            if not any(self._kind(number, token) == gguf.TokenType.BYTE for number, token in enumerate(tokens)):
                logger.warning(
                    "%s: no tokens for single bytes; llama.cpp refuses texts with other characters", self.path
                )
            writer.add_token_scores(self.scores(tokens))
            writer.add_add_space_prefix(self._prefixes_space())
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        around = Tokenizer.from_file(str(self.path)).encode("").ids
        starts = [token for token in around if token not in ends] or [config.bos_token_id]
        for add, token in ((writer.add_bos_token_id, starts[0]), (writer.add_eos_token_id, ends[0])):
            if token is not None:
                add(token)
        writer.add_add_bos_token(starts[0] in around)
        writer.add_add_eos_token(ends[0] in around)
        if (template := self._chat_template()) is not None:
            writer.add_chat_template(template)

    def tokens(self) -> list[str]:
        """The text of every token, by id; rows of the embedding without one are named as padding."""
        texts = {number: text for text, number in self._model["vocab"].items()}
        texts |= {number: token["content"] for number, token in self._added.items()}
        beyond = max(texts)
        if beyond >= self.size:
            raise Unfit(f"{self.path}: token {beyond} has no row in an embedding of {self.size}")
        return [texts.get(number, f"[PAD{number}]") for number in range(self.size)]

    def merges(self) -> list[tuple[str, str]]:
        """Pairs of tokens that are merged, the first ones first."""
        return [tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in self._model["merges"]]

    def scores(self, tokens: list[str]) -> list[float]:
        """
        For SentencePiece's kind, where the pair is merged first whose token has the highest score.

        A token scores by the first merge that makes it: 0, -1, -2 and so on; what no merge makes comes after.
        """
        rank: dict[str, int] = {}
        for place, (left, right) in enumerate(self.merges()):
            rank.setdefault(left + right, place)
        return [-float(rank.get(token, len(rank) + number)) for number, token in enumerate(tokens)]

    def _kind(self, number: int, token: str) -> int:
        kinds, added = gguf.TokenType, self._added.get(number)
        if token == self._model.get("unk_token"):
            return kinds.UNKNOWN
        if added is not None:
            return kinds.CONTROL if added["special"] else kinds.USER_DEFINED
        if token not in self._model["vocab"]:
            return kinds.UNUSED
        is_byte = self._model.get("byte_fallback") and len(token) == 6 and token.startswith("<0x")
        return kinds.BYTE if is_byte else kinds.NORMAL

    def _chat_template(self) -> str | None:
        own, settings = self.path.with_name("chat_template.jinja"), self.path.with_name("tokenizer_config.json")
        if own.is_file():
            return own.read_text(encoding="utf-8")
        template = read_json(settings).get("chat_template") if settings.is_file() else None
        return template if isinstance(template, str) else None

    def _known_split(self) -> str:
        rules = [part["pattern"] for part in self._parts("pre_tokenizer") if part["type"] == "Split"]
        rules = [rule.get("Regex", rule.get("String")) for rule in rules] or [None]
        if len(rules) > 1 or rules[0] not in SPLITS:
            raise Unfit(
                f"{self.path}: it splits text by a rule that GGUF files have no name for; accepted: those of "
                f"{', '.join(SPLITS.values())}"
            )
        return SPLITS[rules[0]]

    def _prefixes_space(self) -> bool:
        scheme = (
            part.get("prepend_scheme", "always") for part in self._parts("pre_tokenizer") if part["type"] == "Metaspace"
        )
        prepends = (part.get("prepend") == SPACE for part in self._parts("normalizer") if part["type"] == "Prepend")
        return any(name != "never" for name in scheme) or any(prepends)

    def _parts(self, key: str) -> Iterator[dict[str, Any]]:
        """The steps of a part of the tokenizer, a sequence or a single one."""
        part = self._content.get(key)
        if part is not None:
            yield from part.get("pretokenizers", part.get("normalizers", [part]))

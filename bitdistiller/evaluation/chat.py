"""A conversation with a model in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bitdistiller.data.tokenising import encode_prompt
from bitdistiller.errors import InputError
from bitdistiller.evaluation.subject import Subject
from bitdistiller.generation.engine import Sampling
from bitdistiller.generation.stream import stream_text, stream_tokens
from bitdistiller.generation.transformers_engine import end_tokens

HELP = "/reset forgets the conversation, /quit or end of file ends it, Ctrl-C stops an answer"


@dataclass
class Chat:
    """
    A conversation: with the tokenizer's chat template where it has one, else each text is continued by itself.

    raw: continue even where there is a template. system: what the template's first message says.
    """

    subject: Subject
    sampling: Sampling
    seed: int = 42
    raw: bool = False
    system: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)
    tokens: int = 0
    """Of the last answer."""
    seconds: float = 0.0
    """That they took."""

    def __post_init__(self) -> None:
        """Raises InputError for a system message without a template."""
        self.template = bool(self.subject.tokenizer.chat_template) and not self.raw
        if self.system and not self.template:
            raise InputError("--system: this model has no chat template; it continues texts")
        self.eos = end_tokens(self.subject.model, self.subject.tokenizer)
        self.reset()

    def reset(self) -> None:
        """Forget the conversation."""
        self.messages = [{"role": "system", "content": self.system}] if self.system else []

    def prompt(self, text: str) -> list[int]:
        """Token ids of the conversation with a new text; raises InputError where no room for an answer is left."""
        ids = self._encode(text)
        if len(ids) >= self.subject.context:
            raise InputError(
                f"the conversation has {len(ids)} tokens, the model's context {self.subject.context}; /reset forgets it"
            )
        return ids

    def answer(self, text: str) -> Iterator[str]:
        """The answer in pieces; what was said of it is remembered even where the reader stops before its end."""
        ids = self.prompt(text)
        room = min(self.sampling.max_new_tokens, self.subject.context - len(ids))
        sampling = Sampling(room, self.sampling.temperature, self.sampling.top_p)
        said: list[str] = []
        begin, self.tokens = time.perf_counter(), 0
        try:
            tokens = self._counted(stream_tokens(self.subject.model, ids, self.seed, sampling, self.eos))
            for piece in filter(None, stream_text(self.subject.tokenizer, tokens)):
                said.append(piece)
                yield piece
        finally:
            self.seconds = time.perf_counter() - begin
            if self.template:
                self.messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "".join(said)}]

    def _counted(self, tokens: Iterable[int]) -> Iterator[int]:
        for token in tokens:
            self.tokens += 1
            yield token

    def _encode(self, text: str) -> list[int]:
        tokenizer: Any = self.subject.tokenizer
        if not self.template:
            return encode_prompt(tokenizer, text)
        messages = [*self.messages, {"role": "user", "content": text}]
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)

    @property
    def pace(self) -> str:
        """Tokens of the last answer, and what each took."""
        each = f", {1000 * self.seconds / self.tokens:.1f} ms/token" if self.tokens else ""
        return f"[{self.tokens} tokens{each}]"


def converse(chat: Chat, lines: Iterable[str], show: Callable[[str], None], remark: Callable[[str], None]) -> None:
    """
    Answer line after line until /quit or the end.

    show: gets the pieces of answers; remark: lines about them. Ctrl-C stops an answer and not the conversation.
    """
    for line in lines:
        text = line.rstrip("\r\n")
        if text == "/quit":
            return
        if text == "/reset":
            chat.reset()
            remark("forgotten")
        elif text.strip():
            _answer(chat, text, show, remark)


def _answer(chat: Chat, text: str, show: Callable[[str], None], remark: Callable[[str], None]) -> None:
    pieces = chat.answer(text)
    try:
        for piece in pieces:
            show(piece)
    except KeyboardInterrupt:
        pieces.close()
        show(" ...")
    except InputError as error:
        remark(str(error))
        return
    show("\n")
    remark(chat.pace)

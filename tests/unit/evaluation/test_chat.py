"""Talking to a model: the engine's own tokens as they come, memory of a conversation, its commands and its limits."""

import sys

import pytest
import torch
from typer.testing import CliRunner

from bitdistiller.cli import app
from bitdistiller.errors import InputError
from bitdistiller.evaluation import chat as module
from bitdistiller.evaluation.chat import Chat, converse
from bitdistiller.evaluation.subject import Subject
from bitdistiller.generation.engine import Sampling
from bitdistiller.generation.stream import stream_text

TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}the {% endif %}"


@pytest.fixture
def templated(subject, tokenizer, monkeypatch):
    """The subject, whose tokenizer has a chat template."""
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    return subject


class Bytes:
    """A tokenizer of bytes."""

    def decode(self, ids, skip_special_tokens):
        return bytes(ids).decode("utf-8", errors="replace")


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_an_answer_is_the_engines_completion(subject, temperature):
    sampling = Sampling(12, temperature)
    (expected,) = subject.engine.complete(["the cat sat"], [7], sampling)
    chat = Chat(subject, sampling, seed=7)
    pieces = list(chat.answer("the cat sat"))
    assert "".join(pieces) == expected.text
    assert len(pieces) > 1
    assert chat.tokens == len(expected.token_ids)
    assert chat.pace.startswith(f"[{chat.tokens} tokens, ")
    assert chat.pace.endswith(" ms/token]")


def test_pieces_never_end_within_a_character():
    text = "naïve — 你好 🙂 end"
    pieces = list(stream_text(Bytes(), text.encode()))
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert list(stream_text(Bytes(), "é".encode()[:1])) == ["\N{REPLACEMENT CHARACTER}"]


def test_a_conversation_is_remembered_and_forgotten(templated):
    chat = Chat(templated, Sampling(3), system="a small dog")
    first = "".join(chat.answer("the cat"))
    assert chat.messages[0] == {"role": "system", "content": "a small dog"}
    assert chat.messages[-1] == {"role": "assistant", "content": first}
    text = templated.tokenizer.decode(chat.prompt("it sat"))
    assert text.split() == f"a small dog the cat {first} it sat the".split()
    chat.reset()
    assert templated.tokenizer.decode(chat.prompt("it sat")).split() == "a small dog it sat the".split()  # noqa: SIM905


def test_without_a_template_texts_are_continued(subject, templated):
    assert not Chat(templated, Sampling(3), raw=True).template
    templated.tokenizer.chat_template = None
    chat = Chat(subject, Sampling(3))
    list(chat.answer("the cat"))
    assert chat.messages == []
    with pytest.raises(InputError, match="--system: this model has no chat template"):
        Chat(subject, Sampling(3), system="a")


def talk(chat, *lines):
    shown, remarks = [], []
    converse(chat, [f"{line}\n" for line in lines], shown.append, remarks.append)
    return "".join(shown), remarks


def test_commands_and_empty_lines(templated):
    chat = Chat(templated, Sampling(2))
    shown, remarks = talk(chat, "the cat", "", "/reset", "a dog", "/quit", "never")
    assert shown.count("\n") == 2
    assert remarks[1] == "forgotten"
    assert len(remarks) == 3
    assert chat.messages[0]["content"] == "a dog"


def test_a_full_context_is_one_line_and_the_conversation_goes_on(subject):
    subject.model.config.max_position_embeddings = 8
    shown, remarks = talk(Chat(subject, Sampling(20)), "the cat " * 6, "the cat")
    assert "8" in remarks[0]
    assert "/reset" in remarks[0]
    assert len(shown.split()) <= 6
    assert remarks[1].startswith("[")


def test_an_interrupt_stops_the_answer_and_not_the_conversation(templated, monkeypatch):
    chat, calls, forward = Chat(templated, Sampling(6)), [], templated.model.forward

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(templated.model, "forward", interrupted)
    shown, remarks = talk(chat, "the cat", "a dog")
    assert " ...\n" in shown
    assert len(remarks) == 2
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2


def test_the_command_reads_lines_and_prints_answers(subject, monkeypatch, tmp_path):
    monkeypatch.setattr(Subject, "load", classmethod(lambda cls, path, dtype, packed: subject))
    options = ["chat", str(tmp_path), "--max-new-tokens", "3", "--temperature", "0"]
    once = CliRunner().invoke(app, [*options, "--prompt", "the cat"])
    assert once.exit_code == 0
    piped = CliRunner().invoke(app, options, input="the cat\n/quit\n")
    assert piped.stdout == once.stdout
    assert "ms/token" in once.stderr
    assert once.stdout.strip() == "".join(Chat(subject, Sampling(3)).answer("the cat"))
    assert module.HELP not in piped.stderr
    assert sys.stdin is not None
    assert torch.is_inference_mode_enabled() is False

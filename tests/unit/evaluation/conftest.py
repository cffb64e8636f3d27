"""A tiny random model with a word tokenizer, an engine that answers from a table, and a stage around them."""

import contextlib
import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitdistiller.config import EvaluateRecipe
from bitdistiller.evaluation.stage import evaluate
from bitdistiller.evaluation.subject import Subject
from bitdistiller.generation.engine import Completion
from bitdistiller.stages import open_stage

WORDS = "<unk> <s> </s> the a cat dog sat ran on mat rug and . it was big small red blue".split()  # noqa: SIM905


@pytest.fixture(scope="session")
def words():
    """The words the tokenizer knows."""
    return WORDS[3:]


@pytest.fixture(scope="session")
def tokenizer():
    """One token per word."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture
def model():
    """A LLaMA of two layers with a context of 64 tokens."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**shape, vocab_size=len(WORDS), max_position_embeddings=64, initializer_range=0.3)
    return LlamaForCausalLM(config).float().eval()


@pytest.fixture
def subject(model, tokenizer):
    return Subject(model, tokenizer)


class TableEngine:
    """Answers a prompt with the first entry whose key it contains; counts its calls."""

    def __init__(self, table):
        self.table = table
        self.batches = []

    def prompt_length(self, prompt):
        return len(prompt.split())

    def complete(self, prompts, seeds, sampling):
        self.batches.append((list(prompts), list(seeds), sampling))
        texts = [next((text for key, text in self.table.items() if key in prompt), "") for prompt in prompts]
        return [Completion(text, [0] * len(text.split()), 1, "eos") for text in texts]


@pytest.fixture
def answering(subject):
    """`answering(table)`: the subject with a TableEngine."""

    def make(table, context=64):
        subject.model.config.max_position_embeddings = context
        subject.engine = TableEngine(table)
        return subject

    return make


@pytest.fixture
def evaluation_of(tmp_path):
    """`evaluation_of(subject, **evaluation)`: run it in a stage; returns metrics, predictions and the output folder."""

    def measure(subject, output="out", time_budget=None, **evaluation):
        recipe = EvaluateRecipe(name="test", evaluation=evaluation, dtype="float32")
        folder = tmp_path / output
        with staged(recipe, folder, time_budget) as stage:
            evaluate(stage, recipe, subject)
        metrics = json.loads((folder / "metrics.json").read_text())
        predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        return metrics, predictions, folder

    return measure


@contextlib.contextmanager
def staged(recipe, output, time_budget=None):
    """A stage without inputs."""
    with open_stage(
        "evaluate", version=1, recipe=recipe, inputs={}, output=output, work=None, time_budget=time_budget
    ) as stage:
        yield stage


@pytest.fixture
def write_lines(tmp_path):
    """`write_lines(rows)`: the path of a JSON lines file."""

    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write

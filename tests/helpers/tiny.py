"""A random Llama small enough for every test, with a tokenizer of its own."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

VOCABULARY = 128
CONTEXT = 64
SENTENCES = [
    "The cat sat on the mat and looked at the moon.",
    "A small dog ran over the hill to find its old friend.",
    "When the rain came, all the children went home and read a book.",
    "Nobody knew where the green bird had learned to sing.",
]


def make_tokenizer(vocabulary: int = VOCABULARY) -> Any:
    """A byte-level BPE tokenizer with start, end and padding tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = string.ascii_letters + string.digits + string.punctuation
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([*SENTENCES, letters], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def make_model(seed: int = 0, scale: float = 4.0, **changes: Any) -> Any:
    """A random float32 Llama; `scale` widens its logits, so that its choices are not all alike."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return model


def write_model(path: Path, seed: int = 0, **changes: Any) -> Path:
    """Save the model and its tokenizer to `path` in Hugging Face layout; returns `path`."""
    make_model(seed, **changes).save_pretrained(path)
    make_tokenizer(changes.get("vocab_size", VOCABULARY)).save_pretrained(path)
    return path

"""The demo teacher: a LLaMA of about a million parameters, trained from nothing in float32."""

import math
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitdistiller.config import DemoTeacherRecipe
from bitdistiller.demo.packing import Rows
from bitdistiller.errors import InputError

HEAD_DIM = 32
INITIAL_STD = 0.09
"""About 1 / sqrt(hidden_size): with the usual 0.02 a model of this width takes longer to learn to copy."""
WARMUP = 0.05
LAST_RATE = 0.02
"""Learning rate at the end, as a share of the peak."""
BETAS = (0.9, 0.98)
MAX_GRADIENT_NORM = 1.0


def architecture(recipe: DemoTeacherRecipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The LLaMA configuration of a recipe; InputError for heads narrower than 32, which serving engines refuse."""
    if recipe.hidden_size % recipe.heads or recipe.hidden_size // recipe.heads < HEAD_DIM:
        raise InputError(
            f"heads: hidden_size {recipe.hidden_size} over {recipe.heads} heads must be at least {HEAD_DIM}"
        )
    if recipe.heads % recipe.kv_heads:
        raise InputError(f"kv_heads: {recipe.kv_heads} does not divide heads {recipe.heads}")
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.context,
        initializer_range=INITIAL_STD,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class TeacherTraining:
    """AdamW on packed rows; its whole state is weights, optimizer and history, so a resumed run is bit-identical."""

    def __init__(self, recipe: DemoTeacherRecipe, config: LlamaConfig, rows: Rows) -> None:
        if len(rows) < recipe.batch_size:
            raise InputError(f"documents: they fill {len(rows)} rows, batch_size {recipe.batch_size} needs as many")
        self.recipe, self.rows = recipe, rows
        self.history: list[dict[str, float]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = LlamaForCausalLM(config)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, betas=BETAS, weight_decay=0.0, fused=True
        )

    @property
    def done(self) -> int:
        """Optimizer steps taken."""
        return len(self.history)

    def step(self) -> float:
        """Take one optimizer step; returns the mean weighted cross-entropy (nats a token) of its batch."""
        chosen = batch_rows(self.done, len(self.rows), self.recipe.batch_size, self.recipe.seed)
        rate = self.recipe.learning_rate * schedule(self.done, self.recipe.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = weighted_loss(self.model, self.rows.ids[chosen], self.rows.weights[chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.history.append({"step": self.done + 1, "loss": loss.item(), "learning_rate": rate})
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "history": self.history}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]


def weighted_loss(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross-entropy (nats) of ids (batch, context), each target counted by its weight."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
    losses = cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
    shares = weights[:, 1:].flatten()
    return (losses * shares).sum() / shares.sum()


def schedule(step: int, steps: int) -> float:
    """Learning rate at a step as a share of the peak: linear warm-up, then half a cosine down to LAST_RATE."""
    warm = max(1, int(WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def batch_rows(step: int, rows: int, batch_size: int, seed: int) -> torch.Tensor:
    """Indices (batch_size,) of a step's rows: a new permutation every epoch, a function of its arguments alone."""
    epoch, index = divmod(step, rows // batch_size)
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    return torch.randperm(rows, generator=generator)[index * batch_size : (index + 1) * batch_size]

"""Gram matrices of every block of a model, in the order of the blocks or, weighted by importance, backwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from bitdistiller.calibration.activations import ActivationWalk, Grams
from bitdistiller.calibration.gram import GramOptions
from bitdistiller.calibration.importance import loss_gradient, step_back
from bitdistiller.calibration.ranges import save_tensors
from bitdistiller.calibration.stored import grams_file, save_grams
from bitdistiller.calibration.weights import ModelWeights
from bitdistiller.stages import Stage


@dataclass(frozen=True)
class GramJob:
    """What Grams are taken of: `layers` names the linears of every block, `tokens` (n, length) are this job's."""

    stage: Stage
    weights: ModelWeights
    layers: list[list[str]]
    tokens: Tensor
    options: GramOptions
    importance: bool = False

    def walk(self) -> ActivationWalk:
        """A walk at the first block."""
        return ActivationWalk(self.weights, self.tokens, device())

    def full_names(self, index: int, grams: Grams) -> Grams:
        """The Grams of block `index` by the layers' names in the model."""
        return {f"{self.weights.name}.{index}.{name}": gram for name, gram in grams.items()}


def device() -> torch.device:
    """Where blocks run and ranges are searched."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def walked_grams(job: GramJob, done: int = 0) -> Iterator[Grams]:
    """The Grams of block after block by full layer names, without those of the first `done` blocks."""
    walk = job.walk()
    for _ in range(done):
        job.stage.deadline.check()
        walk.step()
    for index, names in enumerate(job.layers[done:], start=done):
        job.stage.deadline.check()
        yield job.full_names(index, walk.step(names, job.options))


def collect_grams(job: GramJob, directory: Path) -> float:
    """Write the Grams of all blocks to `directory` (`stored.grams_file`), going on after those that are there.

    Returns blocks per second.
    """
    total, kept = len(job.layers), job.stage.work / "importance"
    done = sum(grams_file(directory, index).exists() for index in range(total))
    directory.mkdir(exist_ok=True)
    with job.stage.progress("grams", total, done, "block") as bar:
        if done == total:
            collected = iter(())
        elif job.importance:
            collected = _weighted_grams(job, kept, total - done)
        else:
            collected = enumerate(walked_grams(job, done), start=done)
        for index, grams in collected:
            save_grams(grams_file(directory, index), grams)
            job.stage.commit()
            bar.advance()
    shutil.rmtree(kept, ignore_errors=True)
    return bar.rate


def _weighted_grams(job: GramJob, kept: Path, left: int) -> Iterator[tuple[int, Grams]]:
    """(block, weighted Grams) of the first `left` blocks, the last of them first.

    `kept` holds what a later attempt needs: the inputs of every block that is left and, once the forward pass is over,
    the gradient of the last one's output. A block's files go once its Grams are stored.
    """
    kept.mkdir(exist_ok=True)
    walk = job.walk()
    if not _gradient_file(kept, left - 1).exists():
        _keep_inputs(job, walk, kept)
        _save_batches(_gradient_file(kept, left - 1), loss_gradient(walk, job.tokens))
    walk.hidden.clear()
    gradients = [gradient.clone() for gradient in _load_batches(_gradient_file(kept, left - 1))]
    for index in reversed(range(left)):
        job.stage.deadline.check()
        _remove_after(kept, index)
        inputs = _load_batches(_inputs_file(kept, index))
        grams = step_back(walk, index, inputs, gradients, job.layers[index], job.options)
        if index:
            _save_batches(_gradient_file(kept, index - 1), gradients)
        yield index, job.full_names(index, grams)


def _keep_inputs(job: GramJob, walk: ActivationWalk, kept: Path) -> None:
    """Run all blocks forward, keeping the input of each and the output of the last, after those kept before."""
    total = len(job.layers)
    done = sum(_inputs_file(kept, index).exists() for index in range(total + 1))
    if done:
        walk.position, walk.hidden = done - 1, _load_batches(_inputs_file(kept, done - 1))
    else:
        _save_batches(_inputs_file(kept, 0), walk.hidden)
    while walk.position < total:
        job.stage.deadline.check()
        walk.step()
        _save_batches(_inputs_file(kept, walk.position), walk.hidden)
        job.stage.commit()


def _remove_after(kept: Path, index: int) -> None:
    """Remove the files of the blocks after block `index`, whose Grams are stored."""
    for path in kept.glob("*.safetensors"):
        if int(path.stem.rpartition("-")[2]) > index:
            path.unlink()


def _inputs_file(kept: Path, block: int) -> Path:
    return kept / f"inputs-{block:04}.safetensors"


def _gradient_file(kept: Path, block: int) -> Path:
    return kept / f"gradient-{block:04}.safetensors"


def _save_batches(path: Path, batches: list[Tensor]) -> None:
    save_tensors(path, {f"{number:06}": batch for number, batch in enumerate(batches)})


def _load_batches(path: Path) -> list[Tensor]:
    """The batches of a file, mapped into memory and read as they are used."""
    tensors = load_file(path)
    return [tensors[name] for name in sorted(tensors)]

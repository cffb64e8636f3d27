"""DeepSpeed ZeRO-2 and ZeRO-3; the JSON configuration is composed here from the training options."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from bitdistiller.config import Training
from bitdistiller.distillation.engines.base import Engine, Groups, State, trained_state
from bitdistiller.distillation.optimizers import make_optimizer, set_learning_rates
from bitdistiller.distillation.world import World
from bitdistiller.errors import InputError

logger = logging.getLogger(__name__)

TAG = "zero"


def zero_config(training: Training, world: World, stage: int) -> dict[str, Any]:
    """
    DeepSpeed's configuration: one "batch" is one micro-batch, as the loop itself says where a step ends.

    The student stays in float32 and multiplies under autocast, as with every other engine.
    """
    on_gpu = world.device.type == "cuda"
    host = {"device": "cpu", "pin_memory": on_gpu}
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": on_gpu, "contiguous_gradients": True}
    if training.offload != "none":
        zero["offload_optimizer"] = host
    if training.offload == "parameters" and stage == 3:
        zero["offload_param"] = host
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": world.size,
        "gradient_clipping": training.max_gradient_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "steps_per_print": sys.maxsize,
    }


class ZeroEngine(Engine):
    """A student under DeepSpeed; the number of processes cannot change between save and resume."""

    stage: ClassVar[int]
    needs_group: ClassVar[bool] = True
    can_skip: ClassVar[bool] = False
    optimizer_files: ClassVar[tuple[str, ...]] = (f"{TAG}/*optim_states.pt",)

    def _prepare(self, groups: Groups) -> None:
        deepspeed = import_deepspeed()
        self._move()
        optimizer = self._make_optimizer(groups(self.model))
        if self.world.device.type == "cpu":
            deepspeed.ops.__compatible_ops__ = {}  # else it compiles an all-reduce that training never calls
        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
        config = zero_config(self.training, self.world, self.stage)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=self.student, optimizer=optimizer, config=config, dist_init_required=False
        )
        self.module = self.engine

    def _move(self) -> None:
        self.student.to(self.world.device)

    def _make_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        offloads = self.training.offload != "none" and self.training.optimizer == "adamw"
        if offloads and self.world.device.type == "cuda" and cpu_adam_works():
            return make_cpu_adam(groups, self.training)
        return make_optimizer(groups, self.training)

    def backward(self, loss: Tensor) -> None:
        """ZeRO takes the mean over processes."""
        self.engine.set_gradient_accumulation_boundary(self.last)
        self.engine.backward(loss * self.world.size, scale_wrt_gas=False)
        if not self.last:
            self.engine.step()

    def step(self, factor: float, skip: bool) -> float:
        """A norm that is not finite comes as -1 or None from DeepSpeed, and as nan from here."""
        set_learning_rates(self.optimizer, factor)
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return math.nan if norm is None or norm < 0 else float(norm)

    def save(self, checkpoint: Path) -> None:
        with raising_afterwards(self.engine.checkpoint_engine):
            self.engine.save_checkpoint(str(checkpoint), tag=TAG, save_latest=False)

    def load(self, checkpoint: Path) -> None:
        self._load(checkpoint)

    def load_weights(self, checkpoint: Path) -> None:
        self._load(checkpoint, load_module_only=True)

    def _load(self, checkpoint: Path, **options: bool) -> None:
        found, _ = self.engine.load_checkpoint(str(checkpoint), tag=TAG, **options)
        if found is None:
            raise InputError(f"{checkpoint}: DeepSpeed finds no checkpoint in it; delete it to go on from an older one")

    def full_state(self) -> State:
        with self._gathered():
            return {n: t.cpu() for n, t in trained_state(self.model).items()} if self.world.leads else {}

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        yield


class Zero2Engine(ZeroEngine):
    """Gradients and optimizer state in shards."""

    name: ClassVar[str] = "zero2"
    stage: ClassVar[int] = 2


class Zero3Engine(ZeroEngine):
    """Weights in shards too."""

    name: ClassVar[str] = "zero3"
    stage: ClassVar[int] = 3

    def _move(self) -> None:
        """DeepSpeed takes every weight to the device when it cuts it into shards."""
        for buffer in self.student.buffers():
            buffer.data = buffer.data.to(self.world.device)

    def full_state(self) -> State:
        import deepspeed

        state: State = {}
        for name, parameter in self.model.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter]):
                if self.world.leads:
                    state[name] = parameter.detach().cpu().clone()
        return state


@contextmanager
def raising_afterwards(writer: Any) -> Iterator[None]:
    """
    Let the first error of `writer.save` come at the end of the block.

    DeepSpeed's processes meet at barriers while they write; one that left earlier would let the others wait for it.
    """
    write, errors = writer.save, []

    def save(*values: Any, **options: Any) -> Any:
        try:
            return write(*values, **options)
        except Exception as error:
            errors.append(error)

    writer.save = save
    try:
        yield
    finally:
        writer.save = write
    if errors:
        raise errors[0]


def import_deepspeed() -> Any:
    """The library, quiet; raises InputError where it is not installed."""
    try:
        import deepspeed
    except ImportError:
        raise InputError(
            "training.engine: zero2 and zero3 need DeepSpeed; pip install 'bitdistiller[engines]', or take engine: fsdp"
        ) from None
    return deepspeed


def cpu_adam_works() -> bool:
    """Whether DeepSpeed's vectorised AdamW for optimizer state in host memory can be built here."""
    from deepspeed.ops.op_builder import CPUAdamBuilder

    try:
        CPUAdamBuilder().load(verbose=False)
    except Exception as error:
        logger.warning("DeepSpeed's CPUAdam cannot be built (%s); taking torch's AdamW", str(error).splitlines()[0])
        return False
    return True


def make_cpu_adam(groups: list[dict[str, Any]], training: Training) -> Optimizer:
    """The update of `make_optimizer`'s adamw, on the host."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    plain = make_optimizer(groups, training)
    betas = (training.adam_beta1, training.adam_beta2)
    return DeepSpeedCPUAdam(groups_of(plain), lr=training.learning_rate, betas=betas, adamw_mode=True)


def groups_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Parameters, rates and decay of an optimizer's groups, for another one."""
    kept = ("params", "lr", "initial_lr", "weight_decay")
    return [{name: group[name] for name in kept} for group in optimizer.param_groups]

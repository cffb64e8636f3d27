"""What tests change or look at inside the processes of helpers/ranks.py."""

from __future__ import annotations

import os
import signal

STOPPED = 2
"""The step after which `stop_the_last_rank` lets one process get SIGTERM."""


def check_kind() -> None:
    """Before the first step: the student is held as its engine says, else the process fails."""
    from bitdistiller.distillation.stage import TrainingRun

    train = TrainingRun._train

    def checked(run: TrainingRun) -> bool:
        KINDS[run.engine.name](run.engine)
        if run.engine.name == "fsdp" and run.teacher is not None:
            _is_sharded(run.teacher.model.base_model)
        return train(run)

    TrainingRun._train = checked


def stop_the_last_rank() -> None:
    """As `check_kind`; then SIGTERM to the last process alone, which is to stop all of them."""
    from bitdistiller.distillation.loop import Loop

    check_kind()
    timed_step = Loop.timed_step

    def step(loop: Loop) -> dict:
        event = timed_step(loop)
        if loop.world.rank == loop.world.size - 1 and event["step"] == STOPPED:
            os.kill(os.getpid(), signal.SIGTERM)
        return event

    Loop.timed_step = step


def fill_the_last_disk() -> None:
    """The last process alone has no room for its second checkpoint of DeepSpeed's."""
    import errno

    from bitdistiller.distillation.engines.zero import ZeroEngine

    save = ZeroEngine.save

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def doomed(engine: ZeroEngine, checkpoint) -> None:
        if engine.world.rank == engine.world.size - 1 and checkpoint.name != f"checkpoint-{STOPPED}":
            engine.engine.checkpoint_engine.save = full
        save(engine, checkpoint)

    ZeroEngine.save = doomed


def spoil_a_gradient() -> None:
    """After the first save, the gradients of the last process of ZeRO are no numbers; its losses still are."""
    from bitdistiller.distillation.engines.zero import ZeroEngine
    from bitdistiller.distillation.loop import Loop

    step, backward = Loop._step, ZeroEngine.backward

    def noted(loop: Loop, index: int) -> dict:
        loop.engine.spoiled = index == STOPPED and loop.world.rank == loop.world.size - 1
        return step(loop, index)

    def spoiled(engine: ZeroEngine, loss) -> None:
        backward(engine, loss * float("nan") if engine.spoiled else loss)

    Loop._step, ZeroEngine.backward = noted, spoiled


def _is_plain(engine) -> None:
    from torch.distributed.tensor import DTensor

    assert not any(isinstance(parameter, DTensor) for parameter in engine.model.parameters())


def _is_ddp(engine) -> None:
    from torch.nn.parallel import DistributedDataParallel

    assert isinstance(engine.module, DistributedDataParallel)


def _is_fsdp(engine) -> None:
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(engine.module, FSDPModule)
    _is_sharded(engine.model, engine.world.size)


def _is_sharded(model, processes: int = 1) -> None:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    from bitdistiller.layers import decoder_blocks

    assert all(isinstance(block, FSDPModule) for block in decoder_blocks(model)[1])
    parameters = list(model.parameters())
    assert all(isinstance(parameter, DTensor) for parameter in parameters)
    whole, own = sum(p.numel() for p in parameters), sum(p.to_local().numel() for p in parameters)
    assert own <= whole / processes + len(parameters)


def _is_zero2(engine) -> None:
    assert engine.module.zero_optimization_stage() == 2


def _is_zero3(engine) -> None:
    assert engine.module.zero_optimization_stage() == 3
    assert all(parameter.ds_tensor.numel() < parameter.ds_numel for parameter in engine.model.parameters())


KINDS = {"single": _is_plain, "ddp": _is_ddp, "fsdp": _is_fsdp, "zero2": _is_zero2, "zero3": _is_zero3}

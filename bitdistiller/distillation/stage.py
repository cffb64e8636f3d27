"""The stage `train`: clip, fake-quantise, distil; the best checkpoint's master weights are the result."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from bitdistiller.config import TrainRecipe
from bitdistiller.data.tokens import TokenFile
from bitdistiller.distillation import checkpoints, gamma
from bitdistiller.distillation.clock import Clock, time_quantiser
from bitdistiller.distillation.divergence import Diverged
from bitdistiller.distillation.engines import Engine, choose, engine_class
from bitdistiller.distillation.engines.base import State
from bitdistiller.distillation.heads import Head, check_head
from bitdistiller.distillation.inputs import Inputs, asks_teacher, check_inputs
from bitdistiller.distillation.journal import Journal
from bitdistiller.distillation.loop import Loop, Objective, Progressed
from bitdistiller.distillation.losses import resolve
from bitdistiller.distillation.packing import choose_layout
from bitdistiller.distillation.parameters import parameter_groups
from bitdistiller.distillation.saving import Saver
from bitdistiller.distillation.shared_stage import SharedStage, open_shared_stage
from bitdistiller.distillation.steps import Steps, check_samples
from bitdistiller.distillation.student import Student, load_plain, make_student, skeleton
from bitdistiller.distillation.student_files import write_student
from bitdistiller.distillation.teacher import Teacher, open_teacher
from bitdistiller.distillation.world import World
from bitdistiller.errors import EXIT_RETRY, BitDistillerError
from bitdistiller.stages import DIGEST, Stage, verify
from bitdistiller.stages.files import json_line, read_json, write_json

logger = logging.getLogger(__name__)

STUDENT = "student"
GAMMA = "gamma.json"
HISTORY = "history.jsonl"


def run(recipe: TrainRecipe, inputs: Inputs, *, output: Path, work: Path | None, time_budget: float | None) -> None:
    """Distil the teacher into the quantised student on the token file; every process of a run calls this."""
    world = World.join(alone=recipe.training.engine not in ("auto", "single"))
    try:
        engine = engine_class(world.lead(lambda: engine_class(choose(recipe.training.engine, world.size)).name))
        world.lead(lambda: check_inputs(recipe, inputs, engine.name, world))
        settings: dict[str, Any] = {"version": 2, "recipe": recipe, "inputs": inputs.paths, "output": output}
        with open_shared_stage(world, "train", time_budget=time_budget, work=work, **settings) as stage:
            world.lead(lambda: _verify(recipe, inputs))
            TrainingRun(recipe, inputs, stage, world, engine).run()
    finally:
        World.leave()


def _verify(recipe: TrainRecipe, inputs: Inputs) -> None:
    """Raises InputError, before any weight is loaded, where files are damaged or the samples unfit."""
    for path in (inputs.tokens, inputs.clip, inputs.warm_start, *inputs.cache):
        if path is not None and path.is_dir() and (path / DIGEST).exists():
            verify(path)
    check_samples(TokenFile(inputs.tokens), recipe.training)


class TrainingRun:
    """One attempt of one process at a training."""

    def __init__(
        self, recipe: TrainRecipe, inputs: Inputs, stage: SharedStage, world: World, engine: type[Engine]
    ) -> None:
        self.recipe, self.inputs, self.stage, self.world = recipe, inputs, stage, world
        training = recipe.training
        self.clock = Clock(world.device)
        file = TokenFile(inputs.tokens)
        model = load_plain(inputs.model, training.masters)
        check_head(model, Head.of(model))
        self.layout = choose_layout(training.batching, model)
        losses = resolve(training.loss)
        self.teacher = self._open_teacher(engine, model) if asks_teacher(training) else None
        self.steps = Steps(file, training, self.layout)
        self.gamma = self._gamma()
        model = make_student(model, recipe, inputs)
        self.engine = engine(
            Student(model, training.precision, self.clock), training, world, partial(parameter_groups, rates=training)
        )
        time_quantiser(self.engine.model, self.clock)
        objective = Objective(losses, self.gamma["gamma"], training, self.teacher, self.clock)
        self.loop = Loop(training, self.engine, self.steps, objective, world, self.clock)
        self.saver = Saver(stage.work, training.keep_checkpoints, self.engine, world, self.gamma, self._commit)

    def _open_teacher(self, engine: type[Engine], model: Any) -> Teacher:
        training, inputs, world = self.recipe.training, self.inputs, self.world

        def place(teacher: Any) -> None:
            if inputs.teacher != inputs.model:  # another model sees the rows too; asked before it is cut into shards
                self.layout = choose_layout(training.batching, model, teacher)
            engine.place_teacher(world, teacher)

        vocabulary = len(model.get_output_embeddings().weight)
        return open_teacher(training, inputs.teacher, inputs.cache, world.device, place, vocabulary)

    def run(self) -> None:
        """Resume, train, and write the result; raises DeadlineReached when it is to go on later."""
        resumed = self.saver.resume(self.steps.total)
        if resumed:
            self.loop.resume(resumed)
        if self._train():
            raise self._stopped()
        self._finish()

    def _stopped(self) -> BitDistillerError:
        """The leader says why all stop; the others end in silence."""
        deadline = self.stage.deadline
        asked = self.world.any(deadline.signalled is not None)
        if not self.world.leads:
            return self.world.elsewhere(EXIT_RETRY)
        if asked and deadline.signalled is None:
            deadline.signalled = "a signal to another process"
        return deadline.reached()

    def _gamma(self) -> dict[str, Any]:
        path = self.stage.work / GAMMA
        known = self.world.lead(lambda: read_json(path) if path.exists() else None)
        if known is not None:
            return known
        value = gamma.measure(self.recipe.training, self.teacher, self.steps, self.world)
        if self.world.leads:
            write_json(path, value)
            self._commit()
            logger.info("gamma %.4f (%s)", value["gamma"], value["definition"])
        return value

    def _commit(self) -> None:
        if self.stage.leader is not None:
            self.stage.leader.commit()

    def _train(self) -> bool:
        leader = self.stage.leader
        self.journal = self._open_journal(leader)
        shown = leader.progress("train", self.steps.total, self.loop.state.step) if leader else nullcontext()
        with self.journal, shown as bar:

            def watch(step: int, **values: Any) -> None:
                self.journal.record(step, gamma=self.gamma["gamma"], **values)
                if bar is not None and "seconds" in values:
                    bar.advance(1, self.journal.note())

            try:
                return self.loop.run(self.stage.deadline.is_due, self._save, watch)
            except Diverged as error:
                if self.world.leads:
                    raise
                raise self.world.elsewhere(error.exit_code) from error  # all see the same numbers; the leader says so

    def _open_journal(self, leader: Stage | None) -> Journal:
        attempt = len(leader.attempts.history()) if leader else 0
        return Journal(
            self.stage.work,
            attempt,
            done=self.loop.state.step,
            processes=self.world.size,
            device=str(self.world.device),
            writes=self.world.leads,
            begin=self.stage.deadline.begin,
        )

    def _save(self, state: Progressed) -> None:
        self.saver.save(state)
        self.journal.sync()

    def _finish(self) -> None:
        best = self.saver.load_best()
        state = self.engine.full_state()
        self.world.lead(lambda: self._write(best, state))

    def _write(self, best: int, state: State) -> None:
        stage = self.stage.leader
        assert stage is not None
        student = stage.output_directory(STUDENT)
        write_student(skeleton(self.engine.model), state, student, self.recipe.quantization)
        AutoTokenizer.from_pretrained(self.inputs.model).save_pretrained(student)
        write_json(stage.output_file(GAMMA), self.gamma)
        history = self.loop.state.history
        with stage.output_file(HISTORY).open("w", encoding="utf-8") as handle:
            handle.writelines(map(json_line, history))
        losses = {event["step"]: event["evaluation_loss"] for event in history if "evaluation_loss" in event}
        counts = {"best_step": best, "steps": self.loop.state.step, "evaluation_loss": losses.get(best)}
        self.journal.log_summary()
        stage.finish(
            counts=counts, details=self.journal.summary() | {"layout": self.steps.layout, "engine": self.engine.name}
        )
        checkpoints.drop_optimizer(self.stage.work, self.engine.optimizer_files)

"""The training of one run: a resolved run config goes in, events and a result come out.

Nothing here depends on how many runs go on beside it: the order of batches, augmentation, masks and growth are
each keyed by the run's seed, so the same config on the same machine with the same thread count gives the same
result to the bit, interrupted and resumed or not.

Several processes (`Rank`) train one run by the same mathematics: of every batch each takes its share, the loss is that
of the whole batch, and process 0 evaluates, tells and saves. They differ from one process by round-off, which may
rank scores that nearly tie otherwise and so lead to another topology of the same counts, and by what a
model draws or computes over a batch itself (dropout; batch norm on CPUs, see `Network`).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from itopctl.config.run_config import RunConfig, user_functions
from itopctl.dst import FlopsMeter, SparseTraining, TopologyUpdate, layer_costs
from itopctl.dst.maskable import maskable_weights
from itopctl.train.checkpoint import (
    backends_in,
    check_fits,
    check_maskable,
    check_numbers,
    check_positions,
    pack,
    random_states,
    set_random_states,
    unpack,
)
from itopctl.train.data.tensors import load_images, share_of
from itopctl.train.evaluation import Evaluation, evaluate, evaluation_stride
from itopctl.train.measure import EnergyMeter, reset_peak_memory
from itopctl.train.network import Network
from itopctl.train.optim import lr_factor, make_optimizer
from itopctl.train.process_settings import check_loss, check_settings
from itopctl.train.ranks import ALONE, Rank
from itopctl.train.result import result_of
from itopctl.train.setup import choose_device, compute_of, rules_of, seed_everything, seed_measurement, seed_step
from itopctl.train.timings import timed

Emit = Callable[[str, dict[str, Any]], None]
"""Takes the name of an event and its fields; `step` and `epoch` are always among them."""

_LOSS_WINDOW = 64  # losses checked at a time: one synchronisation with the device for so many steps
_PROGRESS_SECONDS = 0.5
_AGREE_STRIDE = 8  # steps after which several processes ask each other whether to save or stop: it waits for devices
_GO_ON, _SAVE, _STOP = 0, 1, 2


class TrainingDivergedError(Exception):
    """The loss, or a weight, became NaN or infinite.

    Attributes:
        step: the first step (from 1) at which it was not finite.
        last_good: the last finite loss, or None where there was none.
    """

    def __init__(self, step: int, what: str, last_good: float | None) -> None:
        self.step, self.last_good = step, last_good
        good = (
            f"the last good value of the loss was {last_good:.4g}" if last_good is not None else "it never was finite"
        )
        super().__init__(f"{what} at step {step}; {good}. Try a smaller learning rate.")


class TrainingStoppedError(Exception):
    """Somebody asked the training to stop, after `step`; `checkpoint` was called before this was raised."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"after step {step}")


@dataclass
class Progress:
    """How far a training is; all of it is saved in a checkpoint.

    Attributes:
        step, epochs_ended: optimizer steps done, and epochs evaluated.
        last_loss: the last loss that was read from the device.
        epoch_loss_sum, epoch_loss_steps: losses of the present epoch so far.
        last_zeta: drop fraction of the last topology update, or of the first to come.
        best: the best epoch on validation, and what was measured there.
        training_seconds: time spent on steps, without evaluation.
        wall_seconds: time before this attempt, in attempts that it resumes.
        energy_joules: energy of the device in those; None where it does not tell.
    """

    last_zeta: float | None
    step: int = 0
    epochs_ended: int = 0
    last_loss: float | None = None
    epoch_loss_sum: float = 0.0
    epoch_loss_steps: int = 0
    best: dict[str, Any] | None = None
    training_seconds: float = 0.0
    wall_seconds: float = 0.0
    energy_joules: float | None = None


class Training:
    """One run, ready to go; `run()` trains it to the end.

    Args:
        config: the resolved run.
        data_dir: where data sets lie.
        emit: receives every event.
        should_stop: asked after each step; True makes `run` call `checkpoint` and raise TrainingStoppedError. With
            several processes, True in any of them makes all stop, within `_AGREE_STRIDE` steps and after the same one.
        checkpoint: called with the state to save.
        rank: which of the processes that train this run this is. They have `joined`, and all of them make the same
            calls. Only process 0 calls `emit` and `checkpoint`.

    Raises:
        EnvironmentUnfitError: data missing or damaged. UserError: the sparsity cannot be reached.
    """

    def __init__(
        self,
        config: RunConfig,
        data_dir: Path,
        emit: Emit,
        should_stop: Callable[[], bool] = lambda: False,
        checkpoint: Callable[[dict[str, Any]], None] = lambda state: None,
        rank: Rank = ALONE,
    ) -> None:
        self.config = config
        self.rank = rank
        self.emit: Emit = emit if rank.leads else lambda event, fields: None
        self.should_stop = should_stop
        self.checkpoint = checkpoint
        self.started = time.perf_counter()
        self.own = user_functions(config.model_dump())
        self.device = choose_device(config.device, rank)
        reset_peak_memory(self.device)
        self.energy = EnergyMeter(self.device)
        self.data = load_images(config.dataset, config.validation, data_dir.resolve(), self.device)
        self._begin(compute_of(config, rank))
        self.progress = Progress(last_zeta=config.drop_fraction)
        self.losses = torch.zeros(_LOSS_WINDOW, device=self.device)
        self.loss_count = 0
        self.evaluation_seconds = 0.0
        self.last_evaluation: Evaluation | None = None
        self.last_told = self.last_saved = time.perf_counter()
        self.evaluation_stride = evaluation_stride(config, len(self.data.validation) + len(self.data.test))
        self.stop_wanted = False

    def _begin(self, compute: str | Mapping[str, str]) -> None:
        """Make the network as it is before the first step, its layers computed as `SparseTraining` is told."""
        config = self.config
        seed_everything(config.seed)
        self.network = Network(config, self.data.shape, self.data.classes, self.device, self.rank)
        self.model = self.network.model
        scaled = config.precision == "fp16"
        maskable_weights(
            self.model, config.also_mask or ()
        )  # or what follows would meet what cannot be masked, with worse words
        self.optimizer = make_optimizer(config.optimizer, self.model, scaled)
        self.scaler = torch.amp.GradScaler(self.device.type) if scaled else None
        self.meter = FlopsMeter(layer_costs(self.model, torch.zeros(1, *self.data.shape, device=self.device)))
        before = random_states(self.device)  # a model may draw where its layers are measured
        self.sparse = SparseTraining(
            self.network.shared, self.optimizer, rules=rules_of(config), sparsity=config.sparsity,
            total_steps=config.total_steps, seed=config.seed, also_mask=config.also_mask or (),
            compute=compute,
            timed=functools.partial(timed, own_code=config.own_code) if config.own_code else timed,
            example=torch.zeros(config.batch_size, *self.data.shape, device=self.device),
        )  # fmt: skip
        set_random_states(before, self.device)
        check_settings(self.own)  # the first forward pass, and the user's rules, may have changed them
        self.inference_ratio = self.meter.inference_ratio(self.sparse.layers())

    # The training -----------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Train to the end; returns the result, as written to `result.json`, in every process."""
        config = self.config
        self.emit("progress", {
            **self._position(), "device": str(self.device), "maskable": self.sparse.maskable,
            "density": self.sparse.density, "total_density": self.sparse.total_density,
            "exploration_rate": self.sparse.exploration_rate, "wall_seconds": self.wall_seconds,
        })  # fmt: skip
        while self.progress.epochs_ended < config.total_epochs:
            self._train_epoch(self.progress.epochs_ended)
            self._end_epoch()
        if config.keep_checkpoints:
            self._save()
        return result_of(self)

    def _train_epoch(self, epoch: int) -> None:
        config, rank = self.config, self.rank
        start = self.progress.step - epoch * config.steps_per_epoch
        began, evaluating = time.perf_counter(), self.evaluation_seconds
        self.model.train()
        for images, labels in self.data.train_batches(
            config.batch_size, config.augment, config.seed, epoch, start, (rank.index, rank.count)
        ):
            update = self._train_step(images, labels)
            if update is not None:
                self._record_update(update)
            self._tick()
            wish = self._wish()
            if wish != _GO_ON:
                self._check_losses()
                self._save()
            if wish == _STOP:
                raise TrainingStoppedError(self.progress.step)
        self._check_losses()  # waits for the device, so that the clock tells the truth
        spent = time.perf_counter() - began - (self.evaluation_seconds - evaluating)
        self.progress.training_seconds += spent

    def _train_step(self, images: Tensor, labels: Tensor) -> TopologyUpdate | None:
        config = self.config
        factor = lr_factor(config.lr_schedule, self.progress.step, config.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = config.optimizer.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        if not self.rank.alone:
            seed_step(config.seed, self.progress.step, self.rank)
        with self.network.precision():
            loss = self._loss(self.network.train_logits(images), labels)
        check_loss(loss, self.own)
        if self.scaler is not None:
            self.scaler.scale(loss).backward()
        else:
            loss.backward()
        self.meter.add_steps(1, self.inference_ratio, self.sparse.dense_gradient_due())
        self.losses[self.loss_count] = loss.detach()
        self.loss_count += 1
        self.progress.step += 1
        if self.loss_count == _LOSS_WINDOW or self.sparse.update_due():
            self._check_losses()
        try:
            update = self.sparse.step(self.scaler)
        except FloatingPointError as error:
            raise TrainingDivergedError(self.progress.step, str(error), self.progress.last_loss) from error
        if self.scaler is not None:
            self.scaler.update()
        return update

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch; with several processes, this one's part in it: their mean is that of the batch."""
        smoothing = self.config.label_smoothing
        if self.rank.alone:
            return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        mine = labels[share_of(len(labels), self.rank.index, self.rank.count)]
        total = functional.cross_entropy(logits[: len(mine)], mine, label_smoothing=smoothing, reduction="sum")
        return total * (self.rank.count / len(labels))

    def _end_epoch(self) -> None:
        progress = self.progress
        progress.epochs_ended += 1
        evaluation = self.measured()
        fields = {
            **self._position(), "train_loss": progress.epoch_loss_sum / max(1, progress.epoch_loss_steps),
            **self._state_of_network(), "validation_accuracy": evaluation.validation_accuracy,
            "test_accuracy": evaluation.test_accuracy, "lr": self.optimizer.param_groups[0]["lr"],
            "wall_seconds": self.wall_seconds,
        }  # fmt: skip
        progress.epoch_loss_sum, progress.epoch_loss_steps = 0.0, 0
        accuracy = evaluation.validation_accuracy
        if accuracy is not None and (progress.best is None or accuracy > progress.best["validation_accuracy"]):
            progress.best = {
                "epoch": progress.epochs_ended, "step": progress.step, "validation_accuracy": accuracy,
                "test_accuracy": evaluation.test_accuracy, "exploration_rate": self.sparse.exploration_rate,
            }  # fmt: skip
        self.emit("evaluated", fields)

    def _record_update(self, update: TopologyUpdate) -> None:
        self.progress.last_zeta = update.drop_fraction
        self.inference_ratio = self.meter.inference_ratio(self.sparse.layers())
        stride = self.evaluation_stride
        measured = stride is not None and update.step % stride == 0
        evaluation = self.measured() if measured else None
        self.emit("topology", {
            **self._position(), "train_loss": self.progress.last_loss, **self._state_of_network(),
            "validation_accuracy": evaluation.validation_accuracy if evaluation else None,
            "test_accuracy": evaluation.test_accuracy if evaluation else None,
            "replaced": update.replaced, "moved": update.moved, "new": update.new, "skipped": update.skipped,
            "wall_seconds": self.wall_seconds,
        })  # fmt: skip

    # State ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the training depends on: tensors and plain values.

        What is zero off a mask is stored as its active entries alone (`itopctl.train.checkpoint`). The order of data
        and the learning rate follow from the config and the step.
        """
        state = {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "sparse": self.sparse.state_dict(),
            "maskable": self.sparse.maskable,
            "backends": self.sparse.backends,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "random": random_states(self.device),
            "threads": torch.get_num_threads(),
            "meter": {"training_cost": self.meter.training_cost, "steps": self.meter.steps},
            "progress": asdict(self.progress)
            | {"wall_seconds": self.wall_seconds, "energy_joules": self.energy_joules},
        }
        return pack(state, self.model, self.optimizer, self.sparse)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave for the same config, with any number of processes.

        All of them load the same state. The training goes on with as many threads as it had: with others, sums are
        made in another order, and the last bits differ.

        Raises:
            OtherWeightsError: the state is of a training that masked another number of weights.
            ValueError, KeyError, RuntimeError, …: it is no such state. This training cannot be used any more then.
        """
        check_maskable(state, self.sparse.maskable)
        threads = state.get("threads", torch.get_num_threads())  # not in checkpoints of old
        check_numbers(state["progress"], self.progress)
        check_positions(state)
        backends = backends_in(state)
        if compute_of(self.config, self.rank) == "auto" and backends != self.sparse.backends:
            self._begin(backends)  # to the bit, whatever is faster now
        state = unpack(state, self.sparse)
        check_fits(state, self.model, self.optimizer, self.sparse)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._lay_out_slots()
        self.sparse.load_state_dict(state["sparse"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        set_random_states(state["random"], self.device)
        torch.set_num_threads(threads)
        for name, value in state["meter"].items():
            setattr(self.meter, name, value)
        self.progress = Progress(**state["progress"])
        self.inference_ratio = self.meter.inference_ratio(self.sparse.layers())

    # Pieces -----------------------------------------------------------------------------------------------

    @property
    def wall_seconds(self) -> float:
        """Seconds since the start, those of earlier attempts that this one resumes included."""
        return self.progress.wall_seconds + time.perf_counter() - self.started

    @property
    def energy_joules(self) -> float | None:
        """Energy of the device since the start, in attempts that this one resumes too; None where it does not tell."""
        mine, before = self.energy.joules, self.progress.energy_joules
        return None if mine is None else mine + (before or 0.0)

    def _save(self) -> None:
        """Save a checkpoint, then say so."""
        if self.rank.leads:
            self.checkpoint(self.state_dict())
        self.last_saved = time.perf_counter()
        self.emit("checkpoint", {**self._position(), "wall_seconds": self.wall_seconds})

    def _lay_out_slots(self) -> None:
        """Give optimizer state the memory layout of its weight: fused optimizers read both side by side."""
        for weight, slots in self.optimizer.state.items():
            for name, slot in slots.items():
                if isinstance(slot, Tensor) and slot.shape == weight.shape and slot.stride() != weight.stride():
                    slots[name] = torch.empty_like(weight, dtype=slot.dtype).copy_(slot)

    def _check_losses(self) -> None:
        """Read the losses of the batches since the last check from the device; raise where one is not finite."""
        progress = self.progress
        first = progress.step - self.loss_count + 1
        for offset, loss in enumerate(self.rank.mean(self.losses[: self.loss_count]).tolist()):
            if not math.isfinite(loss):
                raise TrainingDivergedError(first + offset, f"the loss became {loss}", progress.last_loss)
            progress.last_loss = loss
            progress.epoch_loss_sum += loss
            progress.epoch_loss_steps += 1
        self.loss_count = 0

    def measured(self) -> Evaluation:
        """Accuracies now; computed once a step, however often it is asked."""
        if self.last_evaluation is None or self.last_evaluation.step != self.progress.step:
            began = time.perf_counter()
            # Where several processes train, the others wait for what the first measures.
            mine = self._measure() if self.rank.leads else (None, 0.0)
            self.last_evaluation = Evaluation(self.progress.step, *self.rank.first(mine))
            self.evaluation_seconds += time.perf_counter() - began
        return self.last_evaluation

    def _measure(self) -> tuple[float | None, float]:
        """Validation and test accuracy. What a model draws for it follows from the step, and nothing after it does."""
        before = random_states(self.device)
        seed_measurement(self.config.seed, self.progress.step)
        try:
            return evaluate(self.network, self.data)
        finally:
            set_random_states(before, self.device)

    def _position(self) -> dict[str, Any]:
        step = self.progress.step
        return {"step": step, "epoch": round(step / self.config.steps_per_epoch, 6)}

    def _state_of_network(self) -> dict[str, Any]:
        return {
            "exploration_rate": self.sparse.exploration_rate,
            "density": self.sparse.density,
            "drop_fraction": self.progress.last_zeta,
        }

    def _wish(self) -> int:
        """Whether to go on, save or stop now: the same in all processes, though only some may have been told to."""
        self.stop_wanted = self.should_stop() or self.stop_wanted
        overdue = time.perf_counter() - self.last_saved >= 60 * self.config.checkpoint_minutes
        mine = _STOP if self.stop_wanted else _SAVE if overdue and self.rank.leads else _GO_ON
        if self.rank.alone:
            return mine
        return _GO_ON if self.progress.step % _AGREE_STRIDE else self.rank.most(mine, self.device)

    def _tick(self) -> None:
        now = time.perf_counter()
        if now - self.last_told >= _PROGRESS_SECONDS:
            self.last_told = now
            self.energy.read()
            self.emit("progress", {
                **self._position(), "train_loss": self.progress.last_loss,
                "exploration_rate": self.sparse.exploration_rate, "wall_seconds": self.wall_seconds,
            })  # fmt: skip

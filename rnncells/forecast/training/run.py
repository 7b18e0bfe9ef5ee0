"""One training from its first step to its last, which can be put down and taken up again."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rnncells.forecast.batch import Batch
from rnncells.forecast.early_stopping import EarlyStopping
from rnncells.forecast.progress import Progress
from rnncells.forecast.training.batches import (
    Part,
    consecutive,
    gather,
    in_order,
    pieces_of,
    shuffled,
)
from rnncells.forecast.training.checkpoint import identify, resume, save
from rnncells.forecast.training.objective import Objective, cut_state
from rnncells.forecast.training.optimizing import make_optimizer, make_schedule
from rnncells.forecast.training.settings import Diverged, History, Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Run"]

LOOKS = 50  # steps from one look at the loss to the next where a look makes the device wait


class Run:
    """Everything that a training changes: see :func:`rnncells.forecast.training.fit`.

    Between two steps its state is whole: the weights, the optimizer, the schedule, early stopping,
    the place in the epoch, the sum of its losses, a carried state, and torch's random state. The
    order of the batches follows from the seed and the epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Any,
        validation: Any,
        training: Training,
        fabric: Fabric,
        checkpoint: str | Path | None,
        identity: Mapping[str, str] | None = None,
    ) -> None:
        if training.stateful and fabric.world_size > 1:
            raise ValueError("stateful: expected one process: a state goes from step to step")
        if training.stateful and not getattr(model, "carries_state", False):
            raise TypeError(
                f"stateful: {type(model).__name__} carries no state; expected one that "
                "does, such as RecurrentNet"
            )
        self.model, self.train, self.validation = model, train, validation
        self.weights = list(model.parameters())
        self.training, self.fabric = training, fabric
        self.path = None if checkpoint is None else Path(checkpoint)
        self.objective = Objective(model, training)
        self.history, self.stopping = History(), EarlyStopping(training.patience)
        self.epoch, self.step, self.finished = 0, 0, False
        self.total: Any = 0.0
        self.carried: Any = None
        self.began = time.perf_counter()
        # with a scaled loss, it is Fabric that unscales the gradients, which a fused step forbids
        self.scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
        self.inner = make_optimizer(model, training, fused=not self.scaled)
        steps = training.epochs * len(self.parts(0))
        self.schedule = make_schedule(self.inner, training, steps)
        self.forward, self.optimizer = fabric.setup(model, self.inner)
        self.checks = [] if validation is None else self._checks()
        self.identity = {} if self.path is None else identify(self, identity or {})

    def go(self, label: str) -> History:
        """Train to the end; whatever happens, the model ends with its best weights."""
        self.stopping.begin(self.model)
        if self.path is not None:
            resume(self, self.path)
        try:
            show = self.fabric.is_global_zero
            with Progress(label, self.training.epochs, self.epoch, show=show) as progress:
                while not self.finished:
                    progress.step(self._epoch())
        finally:
            self.stopping.restore(self.model)
            self.model.eval()
            self.history.best_epoch = self.stopping.best_epoch or 0
        self.history.seconds += time.perf_counter() - self.began
        return self.history

    def _epoch(self) -> str:
        parts = self.parts(self.epoch)
        self._train(parts)
        train_loss = self._over_processes(float(self.total) / len(parts), 1.0)
        self._require_finite("training loss", train_loss, "")
        stop, note = False, f"loss {train_loss:.4f}"
        if self.checks:
            loss = self._validate()
            self._require_finite("validation loss", loss, "")
            self.history.validation_loss.append(loss)
            stop = self.stopping.update(loss, self.epoch, self.model)
            note = f"validation loss {loss:.4f}, best {self.stopping.best:.4f}"
        else:
            self._require_finite("largest weight", self._largest(), "")
            self.stopping.keep(self.epoch, self.model)
        self.history.train_loss.append(train_loss)
        self.epoch, self.step, self.total = self.epoch + 1, 0, 0.0
        self.finished = stop or self.epoch == self.training.epochs
        self._save()
        return note

    def _train(self, parts: list[Part]) -> None:
        self.model.train()
        every = 1 if self.fabric.device.type == "cpu" else LOOKS
        for part in parts[self.step :]:
            if not part.carried:
                self.carried = None
            batch = gather(self.train, part.indices, self.fabric.device)
            look = self.step % every == 0 or self.step == len(parts) - 1
            self.total = self.total + self.take(batch, look).double()
            self.step += 1
            wanted = self.training.checkpoint_every
            if wanted is not None and self.step % wanted == 0 and self.step < len(parts):
                self._save()

    def take(self, batch: Batch, look: bool = True) -> Tensor:
        """One step of the optimizer on a batch; its loss, without a gradient.

        Args:
            batch: windows.
            look: whether the loss and the gradient must be finite.

        Raises:
            FloatingPointError: one is not; the step is then not taken.
        """
        self.optimizer.zero_grad()
        state = None if self.carried is None else cut_state(self.carried, len(batch.x))
        loss, self.carried = self.objective(self.forward, batch, state)
        self.fabric.backward(loss)
        norm = self._clip()
        if look:
            self._look(loss, norm)
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        return loss.detach()

    def _clip(self) -> Tensor | None:
        """Cut the gradient; its norm, or None where nothing asks for it."""
        limit = math.inf if self.training.clip_norm is None else self.training.clip_norm
        if limit == math.inf and self.fabric.world_size == 1:
            return None
        if self.scaled or self.fabric.device.type != "cpu":
            return self.fabric.clip_gradients(
                self.forward, self.optimizer, max_norm=limit, error_if_nonfinite=False
            )
        # clip_grad_norm_ in fewer calls: a small network's step is calls and little else
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        norm = torch.linalg.vector_norm(torch.cat([part.flatten() for part in gradients]))
        if norm > limit:
            factor = limit / (norm + 1e-6)
            for part in gradients:
                part.mul_(factor)
        return norm

    def _look(self, loss: Tensor, norm: Tensor | None) -> None:
        where = f", step {self.step}"
        if self.fabric.world_size == 1:
            self._require_finite("loss", loss.item(), where)
        # several processes have one norm, and stop together; that of a scaled loss may be infinite,
        # and its step is then left out
        if norm is not None and not self.scaled:
            self._require_finite("gradient's norm", norm.item(), where)

    @torch.no_grad()
    def _validate(self) -> float:
        self.model.eval()
        total, count, state = 0.0, 0, None
        for part in self.checks:
            state = cut_state(state, len(part.indices)) if part.carried else None
            batch = gather(self.validation, part.indices, self.fabric.device)
            loss, weight, state = self.objective.measure(self.forward, batch, state)
            if weight:
                total += loss.item() * weight
                count += weight
        return self._over_processes(total, count)

    def _over_processes(self, total: float, count: float) -> float:
        """The mean over all processes; NaN where nothing was counted."""
        if self.fabric.world_size > 1:
            sums = torch.tensor([total, count], dtype=torch.float64, device=self.fabric.device)
            both: Any = self.fabric.all_reduce(sums, reduce_op="sum")
            total, count = both.tolist()
        return total / count if count else math.nan

    def parts(self, epoch: int) -> list[Part]:
        """The steps of an epoch."""
        training, fabric = self.training, self.fabric
        if training.stateful:
            return consecutive(pieces_of(self.train), training.batch_size, cut=True)
        return shuffled(
            len(self.train),
            training.batch_size,
            training.seed,
            epoch,
            fabric.world_size,
            fabric.global_rank,
        )

    def _checks(self) -> list[Part]:
        size = 4 * self.training.batch_size
        if self.training.stateful:
            return consecutive(pieces_of(self.validation), size, cut=False)
        return in_order(len(self.validation), size, self.fabric.world_size, self.fabric.global_rank)

    def _save(self) -> None:
        if self.path is not None:
            save(self, self.path)

    def _require_finite(self, name: str, value: float, where: str) -> None:
        if math.isfinite(value):
            return
        best = self.stopping.best_epoch
        raise Diverged(
            f"training diverged in epoch {self.epoch}{where}: the {name} is {value}; the "
            f"learning rate ({self.training.learning_rate}) may be too high, or the windows "
            "hold extreme values (are they scaled?). "
            + (
                "No epoch was good before it, so no weights were learned"
                if best is None
                else f"The model keeps its best weights so far, those of epoch {best}"
            ),
            self.history,
        )

    def _largest(self) -> float:
        """NaN or infinite where a weight is: without validation, no loss has yet seen them."""
        sizes = [weight.detach().abs().max() for weight in self.weights if weight.numel()]
        return torch.stack(sizes).max().item() if sizes else 0.0

"""Fine-tuning a detector by a plan: resumable at any iteration, with validation, early stop and one look at test."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models_store.detector import Detector
from worker.data.dataset import Dataset
from worker.evaluation.evaluate import Evaluation
from worker.evaluation.prediction import prediction_of
from worker.training import ranks, state
from worker.training.average import Average, moving, put
from worker.training.data_dependent_init import data_dependent_init
from worker.training.examples import Example
from worker.training.inputs import Host, Renewal, Watch
from worker.training.optimiser import load_optimiser, optimiser_of, optimiser_tensors, set_rate
from worker.training.order import Ready, base_size, made_ready, size_of
from worker.training.pictures import Pictures
from worker.training.plan import Plan
from worker.training.randomness import PerImageSampler
from worker.training.report import averaged, diverged
from worker.training.schedule import Plateau, Stretch, factor, stretches
from worker.training.state import KeptState, Position
from worker.training.step import Stepper
from worker.training.trained import Trained
from worker.training.validate import evaluated

CURVE_POINTS = 200
# A budget's pace is measured on these first steps, the very first left out.
PACE_STEPS = 6


@dataclass
class Training:
    """One training while it runs."""

    detector: Detector
    dataset: Dataset
    plan: Plan
    examples: list[Example]
    val_ids: list[int]
    test_ids: list[int]
    folder: Path
    who: dict[str, Any]
    stepper: Stepper
    pictures: Pictures
    host: Host
    watch: Watch
    renewal: Renewal | None = None

    def __post_init__(self) -> None:
        self.module = self.detector.module
        self.base_size = base_size(self.detector, self.plan.image_size)
        # A detector of one fixed size is made for it.
        fixed = self.detector.manifest.input.fixed_size is not None
        self.scales = (1.0,) if fixed else self.plan.recipe.augmentation.scales
        self.per_epoch = math.ceil(len(self.examples) / self.plan.batch_size)
        self.position = Position(iterations=self.plan.iterations)
        self.window: dict[str, Tensor] = {}
        self.optimiser: torch.optim.Optimizer | None = None
        self.average: Average | None = None
        self.best: dict[str, Tensor] | None = None
        self.last: tuple[int, Evaluation | None] = (0, None)
        self.best_evaluation: Evaluation | None = None
        self.evaluated_images, self.evaluating_s = 0, 0.0

    def run(self) -> Trained:
        if self.stepper.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.stepper.device)
        if self.position.finished is None:
            self._train()
        return self._conclude()

    def _batches(self) -> Generator[list[Ready]]:
        return made_ready(
            self.examples,
            self.pictures,
            self.plan.recipe.augmentation,
            batch_size=self.plan.batch_size,
            seed=self.plan.seed,
            first=self.position.iteration,
            share=ranks.share,
            threads=self.host.decode_threads,
        )

    def _train(self) -> None:
        batches = self._batches()
        self.saved_at = time.monotonic()
        with contextlib.closing(batches):
            while self.position.finished is None:
                self.watch.check()
                if self._paused():
                    self._save()
                    return
                self._one_iteration(batches)
        self._save()

    def _one_iteration(self, batches: Iterator[list[Ready]]) -> None:
        begin = time.perf_counter()
        batch = self._renewed(next(batches))
        position = self.position
        stretch = self._stretch()
        within = position.iteration - stretch.first
        recipe = self.plan.recipe
        length = None if position.iterations is None else stretch.length
        warmup = min(recipe.warmup_iterations, self.per_epoch)
        rate = set_rate(self.optimiser, factor(recipe, within, length, warmup, position.plateau.factor))
        size = size_of(position.iteration, self.base_size, self.scales, self.plan.seed)
        losses = self.stepper.step(batch, position.iteration, size, self.optimiser)
        if self.average is not None:
            self.average.follow(position.iteration + 1)
        for name, value in losses.items():
            self.window[name] = self.window[name] + value if name in self.window else value
        position.window_steps += 1
        position.iteration += 1
        if self.stepper.device.type == "cpu":
            self._insist_finite(losses, rate)
        self._count_time(begin)
        on_schedule = self._due(self.plan.evaluations) or position.finished is not None
        new_point = on_schedule or self._due(CURVE_POINTS)
        if new_point:
            self._point(rate)
        if on_schedule:
            self._validate()
        if new_point:
            self.watch.point(position.curves[-1])
        if self._agreed(time.monotonic() - self.saved_at >= self.host.save_every_s):
            self._save()
        self.watch.progress(position.iteration, position.iterations, self._message())

    def _renewed(self, batch: list[Ready]) -> list[Ready]:
        """With targets as the averaged weights see them, where it is time for that. It follows from the state alone."""
        renewal, begins = self.renewal, self.plan.renewed_from
        position = self.position
        if renewal is None or begins is None or position.iterations is None or self.average is None:
            return batch
        asked = [ready for ready in batch if self.examples[ready.index].image.id in renewal.image_ids]
        if not asked or position.iteration < begins * position.iterations:
            return batch
        self.module.eval()
        with self.average.in_place(), torch.no_grad():
            pixels = [ready.pixels for ready in asked]
            found = self.detector.predictions(pixels, image_size=self.plan.image_size)
        said = {}
        for ready, output in zip(asked, found, strict=True):
            image_id = self.examples[ready.index].image.id
            objects = renewal.objects(prediction_of(image_id, output))
            said[ready.index] = {
                "boxes": torch.as_tensor(objects.boxes, dtype=torch.float32).view(-1, 4),
                "labels": torch.as_tensor(objects.labels, dtype=torch.int64),
            }
        return [replace(ready, target=said[ready.index]) if ready.index in said else ready for ready in batch]

    def _stretch(self) -> Stretch:
        """The phase of the next iteration, with an optimiser of its own from its first iteration on."""
        position = self.position
        parts = stretches(self.plan.phases, position.iterations or 1 << 40)
        stretch = next(s for s in reversed(parts) if s.first <= position.iteration)
        if stretch.number != position.stretch or self.optimiser is None:
            if stretch.number != position.stretch:
                position.plateau = Plateau()
            position.stretch = stretch.number
            self.optimiser = optimiser_of(self.detector, self.plan.recipe, stretch.phase, self.stepper.device)
        return stretch

    def _count_time(self, begin: float) -> None:
        position, budget = self.position, self.plan.budget_s
        took = time.perf_counter() - begin
        if budget is None and self.plan.stop_at_s is None:
            position.seconds += took
        else:
            # All processes go by the first one's clock.
            position.seconds += ranks.total([took if ranks.is_first() else 0.0], self.stepper.device)[0]
        if position.iteration == 1:
            position.first_seconds = position.seconds
        if budget is not None and position.iterations is None and position.iteration >= PACE_STEPS:
            pace = (position.seconds - position.first_seconds) / (position.iteration - 1)
            position.iterations = position.iteration + max(0, int((budget - position.seconds) / pace))
        if budget is not None and position.seconds >= budget:
            position.finished = "budget"
        elif position.iterations is not None and position.iteration >= position.iterations:
            position.finished = "completed" if budget is None else "budget"

    def _due(self, times: int) -> bool:
        """Whether this iteration is one of `times` evenly spread ones."""
        done, total = self.position.iteration, self.position.iterations
        return total is not None and done * times // total > (done - 1) * times // total

    def _paused(self) -> bool:
        plan, position = self.plan, self.position
        return (plan.stop_at_iterations is not None and position.iteration >= plan.stop_at_iterations) or (
            plan.stop_at_s is not None and position.seconds >= plan.stop_at_s
        )

    def _point(self, rate: float) -> None:
        position = self.position
        summed = ranks.sum_of_losses(self.window)
        losses = averaged(summed, position.window_steps)
        if not all(math.isfinite(value) for value in losses.values()):
            raise diverged(losses, position.iteration, rate, self.plan, self.stepper.precision)
        position.curves.append(
            {
                "iteration": position.iteration,
                "epoch": round(position.iteration / self.per_epoch, 3),
                "seconds": round(position.seconds, 3),
                "lr": rate,
                "loss": sum(losses.values()),
                "losses": losses,
            }
        )
        self.window, position.window_steps = {}, 0

    def _insist_finite(self, losses: dict[str, Tensor], rate: float) -> None:
        values = {name: float(value) for name, value in losses.items()}
        if not all(math.isfinite(value) for value in values.values()):
            raise diverged(values, self.position.iteration, rate, self.plan, self.stepper.precision)

    def _evaluate(self, image_ids: Sequence[int]) -> Evaluation | None:
        """By the first process, with the averaged weights where there are; the others get None."""
        if not ranks.is_first():
            return None
        with self.average.in_place() if self.average is not None else contextlib.nullcontext():
            return self._evaluate_as_is(image_ids)

    def _evaluate_as_is(self, image_ids: Sequence[int]) -> Evaluation:
        began = time.perf_counter()
        found = evaluated(
            self.detector,
            self.dataset,
            image_ids,
            self.pictures,
            self.plan.image_size,
            threads=self.host.decode_threads,
            check=self.watch.check,
        )
        self.evaluated_images += len(image_ids)
        self.evaluating_s += time.perf_counter() - began
        return found

    def _validate(self) -> None:
        """The evaluation on schedule: best weights, plateau of the rate, patience."""
        position = self.position
        evaluation = self._evaluate(self.val_ids)
        self.last = (position.iteration, evaluation)
        now = ranks.told_by_first(self._summary(evaluation))
        position.evaluated = position.iteration
        position.curves[-1]["val"] = self._told(now)
        if self._is_better(now, position.best):
            position.best, position.bad = now, 0
            self.best, self.best_evaluation = self._weights(), evaluation
        else:
            position.bad += 1
        if self.plan.recipe.schedule == "plateau":
            position.plateau.seen(
                now["map"] or 0.0, gamma=self.plan.recipe.gamma, patience=self.plan.recipe.plateau_patience
            )
        if (
            self.plan.patience is not None
            and position.bad >= self.plan.patience
            and position.finished is None
        ):
            position.finished = "plateau"

    def _summary(self, evaluation: Evaluation | None) -> dict[str, Any]:
        if evaluation is None:
            return {}
        iteration = self.position.iteration
        return {
            "iteration": iteration,
            "epoch": round(iteration / self.per_epoch, 3),
            "map": evaluation.box["map"],
            "ap50": evaluation.box["ap50"],
        }

    def _told(self, summary: dict[str, Any]) -> dict[str, Any]:
        """What the curves say of an evaluation."""
        return {"map": summary["map"], "ap50": summary["ap50"]}

    def _is_better(self, now: dict[str, Any], best: dict[str, Any] | None) -> bool:
        """Without a defined mAP the later weights are the better ones."""
        if best is None or now["map"] is None or best["map"] is None:
            return True
        return now["map"] > best["map"]

    def _weights(self) -> dict[str, Tensor]:
        source = self.average.tensors if self.average is not None else moving(self.module)
        return {name: tensor.detach().cpu().clone() for name, tensor in source.items()}

    def _conclude(self) -> Trained:
        position = self.position
        best, weights, evaluation = position.best, self.best, self.best_evaluation
        if position.finished is None:
            # Paused: what stands here is worth knowing and takes no part in the training's own choices.
            iteration, now = self.last
            if iteration != position.iteration or now is None:
                now = self._evaluate(self.val_ids)
            summary = ranks.told_by_first(self._summary(now))
            if self._is_better(summary, best):
                best, weights, evaluation = summary, self._weights(), now
        if weights is not None:
            put(self.module, weights)
        ends = None
        if ranks.is_first():
            whole = position.finished is not None and self.test_ids
            ends = (
                evaluation or self._evaluate_as_is(self.val_ids),
                self._evaluate_as_is(self.test_ids) if whole else None,
            )
        val, test = ranks.of_first(ends)
        return Trained(
            detector=self.detector,
            curves=position.curves,
            best=dict(best or {}),
            iterations=position.iteration,
            seconds=position.seconds,
            finished=position.finished or "paused",
            val=val,
            test=test,
            start=position.start,
            image_s=self.evaluating_s / self.evaluated_images if self.evaluated_images else None,
            peak_memory_bytes=torch.cuda.max_memory_allocated(self.stepper.device)
            if self.stepper.device.type == "cuda"
            else None,
        )

    def begin(self, samplers: Sequence[PerImageSampler]) -> None:
        """Fresh layers get their scale; before `restore`, of a training that has no state yet."""
        began = time.perf_counter()
        begun = data_dependent_init(
            self.detector,
            self.plan,
            self.examples,
            self.pictures,
            samplers,
            self.base_size,
            threads=self.host.decode_threads,
        )
        seconds = time.perf_counter() - began
        self.position.start = {**asdict(begun), "seconds": round(seconds, 3)}
        said = (
            f"{len(begun.factors)} fresh layers begin at the scale of the training images"
            if begun.factors
            else "fresh layers begin as they are"
        )
        far = "" if begun.distance is None else f": a factor of {begun.distance:.3g} from their aim"
        self.watch.log(f"{said}{far} ({seconds:.1f} s)")

    def restore(self, kept: KeptState | None) -> None:
        """Begin where the state stands, or anew."""
        if kept is not None:
            self.position, self.best = kept.position, kept.best
            put(self.module, _under("model/", kept.tensors))
        if self.plan.ema:
            self.average = Average(self.module, self.plan.ema)
        position = self.position
        position.precision = str(self.stepper.precision)
        if kept is None:
            return
        if position.stretch is not None and position.finished is None:
            phase = self.plan.phases[position.stretch]
            self.optimiser = optimiser_of(self.detector, self.plan.recipe, phase, self.stepper.device)
            load_optimiser(self.optimiser, self.module, _under("optimiser/", kept.tensors))
        if self.average is not None:
            for name, tensor in _under("average/", kept.tensors).items():
                self.average.tensors[name].copy_(tensor)
        if ranks.is_first():
            self.window = {
                name: torch.tensor(value, dtype=torch.float64, device=self.stepper.device)
                for name, value in position.window.items()
            }
        self.stepper.micro_batch = position.micro_batch
        if position.scaler:
            self.stepper.scaler.load_state_dict(position.scaler)

    def _the_optimiser(self) -> torch.optim.Optimizer:
        if self.optimiser is None:
            raise AssertionError("no iteration has been made yet")
        return self.optimiser

    def _save(self) -> None:
        position = self.position
        summed = ranks.sum_of_losses(self.window)
        position.window = {name: float(value) for name, value in summed.items()}
        if not all(math.isfinite(value) for value in position.window.values()):
            rate = max(group["lr"] for group in self._the_optimiser().param_groups)
            raise diverged(position.window, position.iteration, rate, self.plan, self.stepper.precision)
        self.window = summed if ranks.is_first() else {}
        position.micro_batch = self.stepper.micro_batch
        position.scaler = self.stepper.scaler.state_dict()
        if ranks.is_first():
            tensors = {f"model/{name}": tensor for name, tensor in moving(self.module).items()}
            if position.finished is None:
                found = optimiser_tensors(self.optimiser, self.module) if self.optimiser is not None else {}
                tensors |= {f"optimiser/{name}": tensor for name, tensor in found.items()}
            if self.average is not None:
                tensors |= {f"average/{name}": tensor for name, tensor in self.average.tensors.items()}
            state.write(self.folder, self.who, position, tensors, self.best)
            self.watch.saved(position.iteration)
        self.saved_at = time.monotonic()

    def _agreed(self, wanted: bool) -> bool:
        """Whether the first process wants it."""
        return bool(ranks.total([float(wanted and ranks.is_first())], self.stepper.device)[0])

    def _message(self) -> str:
        position = self.position
        said = []
        if position.curves:
            said.append(f"loss {position.curves[-1]['loss']:.4g}")
        if position.best is not None and position.best["map"] is not None:
            said.append(f"best mAP {position.best['map']:.3f}")
        return ", ".join(said)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

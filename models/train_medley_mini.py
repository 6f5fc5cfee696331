"""Train `models/medley-mini`: a small picture tower, and a text head after minilm, into one space.

    python -m models.train_medley_mini --fashion fashion-products-train.parquet \\
        --caltech caltech101-train-128px.parquet --work DIRECTORY

The text model is locked: every caption is embedded once. Pictures meet their captions in four contrastive losses with
several right answers each (Yang et al., "Unified Contrastive Learning in Image-Text-Label Space", CVPR 2022): captions
by topic, titles, all kinds of thing, all pairs of colour and kind. What is kept is a moving average of the weights.

Needs the extra `training`: torch, onnx, onnxruntime, safetensors, tokenizers, pyarrow.
"""

import argparse
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.training import corpus
from models.training.augment import Augment, Strength
from models.training.batches import Batch, Sampler, fits, text_vectors
from models.training.corpus import Example, Split
from models.training.network import Average, Towers
from models.training.text import TextEncoder
from models.training.validation import Validator

WIDTHS, DIMENSIONS = (32, 64, 128, 192, 320), 256
MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
SOURCES = (corpus.FASHION, corpus.CALTECH, corpus.DRAWN)
STRENGTHS = [
    Strength(zoom_out=1.35, zoom_in=1.25, turn=10, shift=0.12, light=0.12, occlude=0.15),
    Strength(zoom_out=1.2, zoom_in=1.9, turn=15, shift=0.2, light=0.4, occlude=0.3, grey=0.1),
    Strength(zoom_out=1.4, zoom_in=1.3, turn=12, shift=0.1, light=0.12, occlude=0.1, mirror=False),
]
SHARES = {corpus.FASHION: 0.5, corpus.CALTECH: 0.3, corpus.DRAWN: 0.2}
LOSS_WEIGHTS = (1.0, 0.5, 1.0, 0.7)
CANVAS = 1.25
"""Canvases are this much larger than the pixels sampled from them."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training at one resolution."""

    size: int
    minutes: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train."""

    stages: tuple[Stage, ...]
    batch: int = 256
    rate: float = 2e-3
    warm_up_steps: int = 300
    weight_decay: float = 0.05
    average: float = 0.998

    @property
    def minutes(self) -> float:
        """Return the length of all stages."""
        return sum(stage.minutes for stage in self.stages)

    def rate_at(self, step: int, minutes: float) -> float:
        """Return the learning rate: a linear warm-up in steps, and half a cosine down to zero in time."""
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        return self.rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, minutes / self.minutes)))


def picture_weights(examples: Sequence[Example]) -> np.ndarray:
    """Return how often each picture is drawn: sources by `SHARES`, rare kinds more often than their number."""
    kinds = Counter((example.source, example.kind) for example in examples)
    weights = np.array([kinds[example.source, example.kind] ** -0.4 for example in examples])
    sources = np.array([example.source for example in examples])
    for source, share in SHARES.items():
        weights[sources == source] *= share / max(weights[sources == source].sum(), 1e-9)
    return weights


def contrastive_loss(logits: Tensor, right: Tensor) -> Tensor:
    """Return the cross-entropy of `logits`, (pictures, captions), against equal shares of what is `right`, both ways.

    A picture or caption with nothing right in the batch is left out.
    """
    return (_one_way(logits, right) + _one_way(logits.T, right.T)) / 2


def _one_way(logits: Tensor, right: Tensor) -> Tensor:
    target = right.float()
    total = target.sum(1)
    answered = total > 0
    loss = -(target * logits.log_softmax(1)).sum(1)[answered] / total[answered]
    return loss.mean()


class Trainer:
    """Holds what one run of the training needs."""

    def __init__(self, plan: Plan, examples: Sequence[Example], vectors_cache: Path, text: TextEncoder) -> None:
        self.plan = plan
        self.examples = examples
        self.sources = np.array([SOURCES.index(example.source) for example in examples])
        self.sampler = Sampler(examples, picture_weights(examples), seed=1)
        self.states = self.sampler.table.states()
        self.text = torch.from_numpy(text_vectors(text, self.sampler.table.texts(), vectors_cache))
        self.augment = Augment(STRENGTHS, MEAN, STD, seed=2)
        self.towers = Towers(WIDTHS, DIMENSIONS).to(memory_format=torch.channels_last)
        self.average = Average(self.towers, plan.average)
        self.optimiser = self._optimiser()

    def _optimiser(self) -> torch.optim.Optimizer:
        parameters = list(self.towers.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.plan.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.plan.rate, betas=(0.9, 0.98))

    def resume(self, weights: Path) -> None:
        """Go on from the averaged weights of an earlier run."""
        self.towers.load_state_dict(torch.load(weights, weights_only=True)["towers"])
        self.average = Average(self.towers, self.plan.average)

    def step(self, batch: Batch, pixels: Tensor, rate: float) -> float:
        """Take one step on `batch` and return its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss(batch, pixels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.towers.parameters(), 2.0)
        self.optimiser.step()
        self.average.update(self.towers)
        return loss.item()

    def _loss(self, batch: Batch, pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pictures = self.towers.image(pixels)
        loss = torch.zeros(())
        for weight, columns in zip(LOSS_WEIGHTS, batch.columns, strict=True):
            captions = self.towers.text(self.text[columns])
            right = torch.from_numpy(fits(self.states[columns], self.sampler.labels[batch.pictures]))
            loss = loss + weight * contrastive_loss(self.towers.scale() * pictures @ captions.T, right)
        return loss


class Clock:
    """Minutes of training, without what happens between `stop` and `start`."""

    def __init__(self) -> None:
        self._minutes, self._started = 0.0, time.monotonic()

    def start(self) -> None:
        """Count from now."""
        self._started = time.monotonic()

    def stop(self) -> None:
        """Keep what was counted so far."""
        self._minutes = self.minutes()

    def minutes(self) -> float:
        """Return the minutes counted; only between `start` and `stop`."""
        return self._minutes + (time.monotonic() - self._started) / 60


def train(trainer: Trainer, validate_every: int, text: TextEncoder, validation: Sequence[Example], work: Path) -> None:
    """Run every stage, printing losses and validation figures, and keep the averaged weights in `work`."""
    step, end, clock = 0, 0.0, Clock()
    for stage in trainer.plan.stages:
        end += stage.minutes
        canvases = corpus.canvases(trainer.examples, round(stage.size * CANVAS))
        validator = Validator(validation, stage.size, text, work / "validation.npz")
        losses: list[float] = []
        clock.start()
        while (minutes := clock.minutes()) < end:
            batch = trainer.sampler.batch(trainer.plan.batch)
            pixels = trainer.augment(canvases[batch.pictures], trainer.sources[batch.pictures], stage.size)
            losses.append(trainer.step(batch, pixels, trainer.plan.rate_at(step, minutes)))
            step += 1
            if step % validate_every == 0 or clock.minutes() >= end:
                clock.stop()
                figures = validator.report(trainer.average.module, trainer.augment)
                print(f"{step}, {minutes:.1f} min, {stage.size} px, loss {np.mean(losses):.3f}: {figures}", flush=True)
                losses.clear()
                torch.save(
                    {"towers": trainer.average.module.state_dict(), "size": stage.size},
                    work / f"average-{stage.size}.pt",
                )
                clock.start()


def main() -> None:
    """Train, and leave each stage's averaged weights in `--work`/average-SIZE.pt for `models.export_medley_mini`."""
    arguments = argparse.ArgumentParser(description="Train models/medley-mini.")
    arguments.add_argument("--fashion", type=Path, required=True)
    arguments.add_argument("--caltech", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True, help="folder for caches and checkpoints")
    arguments.add_argument("--minilm", type=Path, default=Path("models/minilm"))
    arguments.add_argument("--drawn-seeds", type=int, default=40, help="catalogues to draw, 360 products each")
    arguments.add_argument("--stages", nargs="+", default=["64:30", "96:30"], metavar="SIZE:MINUTES")
    arguments.add_argument("--rate", type=float, default=2e-3)
    arguments.add_argument("--resume", type=Path, help="weights to go on from, with another --rate")
    arguments.add_argument("--warm-up-steps", type=int, default=300)
    arguments.add_argument("--average", type=float, default=0.998, help="decay of the moving average")
    arguments.add_argument("--validate-every", type=int, default=500)
    options = arguments.parse_args()

    torch.manual_seed(0)
    options.work.mkdir(parents=True, exist_ok=True)
    text = TextEncoder(options.minilm)
    stages = tuple(Stage(int(size), float(minutes)) for size, minutes in (part.split(":") for part in options.stages))
    examples, validation = (
        corpus.fashion(options.fashion, part) + corpus.caltech(options.caltech, part)
        for part in (Split.TRAIN, Split.VALIDATION)
    )
    examples += corpus.drawn([1000 + seed for seed in range(options.drawn_seeds)], 360) if options.drawn_seeds else []
    plan = Plan(stages, rate=options.rate, warm_up_steps=options.warm_up_steps, average=options.average)
    trainer = Trainer(plan, examples, options.work / "captions.npz", text)
    if options.resume:
        trainer.resume(options.resume)
    print(f"{len(examples)} pictures, {len(trainer.text)} captions", flush=True)
    train(trainer, options.validate_every, text, validation, options.work)


if __name__ == "__main__":
    main()

"""Random changes to a batch of pictures: geometry, mild colour, occlusion. Colour words must stay true."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Strength:
    """How far the pictures of one source may be changed."""

    zoom_out: float
    zoom_in: float
    turn: float
    shift: float
    light: float
    occlude: float
    grey: float = 0.0
    mirror: bool = True


class Augment:
    """Turns uint8 canvases into normalised pixels of `size`, each changed by its source's `Strength`."""

    def __init__(self, strengths: list[Strength], mean: list[float], std: list[float], seed: int) -> None:
        self._strengths = strengths
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self._random = np.random.default_rng(seed)

    def __call__(self, canvases: np.ndarray, sources: np.ndarray, size: int) -> Tensor:
        """Return float32 pixels, shape (batch, 3, size, size). `sources` picks each picture's strength."""
        pixels = torch.from_numpy(canvases).permute(0, 3, 1, 2).float().div_(255)
        strengths = [self._strengths[source] for source in sources]
        pixels = self._light(self._warp(pixels, strengths, size), strengths)
        self._occlude(pixels, strengths)
        return self.normalise(pixels)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return `pixels`, in 0..1, minus the mean and over the deviation, in the layout convolutions like."""
        return ((pixels - self._mean) / self._std).to(memory_format=torch.channels_last)

    def _uniform(self, low: np.ndarray, high: np.ndarray) -> Tensor:
        return torch.from_numpy(self._random.uniform(low, high).astype(np.float32))

    def _symmetric(self, reach: np.ndarray) -> Tensor:
        return self._uniform(-reach, reach)

    def _warp(self, pixels: Tensor, strengths: list[Strength], size: int) -> Tensor:
        zoom_out, zoom_in, turn, shift = np.array([(s.zoom_out, s.zoom_in, s.turn, s.shift) for s in strengths]).T
        span = torch.exp(self._uniform(-np.log(zoom_in), np.log(zoom_out)))
        aspect = torch.exp(self._symmetric(np.full(len(strengths), 0.12)))
        angle = self._symmetric(np.deg2rad(turn))
        mirrored = self._random.random(len(strengths)) < 0.5 * np.array([s.mirror for s in strengths])
        flip = torch.from_numpy(np.where(mirrored, -1.0, 1.0).astype(np.float32))
        rows = [
            torch.stack([span * aspect * angle.cos() * flip, -span * angle.sin(), self._symmetric(shift)], 1),
            torch.stack([span * angle.sin() * flip, span / aspect * angle.cos(), self._symmetric(shift)], 1),
        ]
        grid = functional.affine_grid(torch.stack(rows, 1), [len(pixels), 3, size, size], align_corners=False)
        # Outside the canvas the sampler returns zero, so white must be zero while it runs.
        return functional.grid_sample(pixels - 1, grid, align_corners=False) + 1

    def _light(self, pixels: Tensor, strengths: list[Strength]) -> Tensor:
        light = np.array([s.light for s in strengths])
        brightness, contrast, saturation = (
            (1 + self._symmetric(light)).view(-1, 1, 1, 1) for _ in ("brightness", "contrast", "saturation")
        )
        grey = torch.from_numpy(self._random.random(len(strengths)) < [s.grey for s in strengths])
        saturation[grey] = 0.0
        luma = pixels.mean(1, keepdim=True)
        pixels = luma + (pixels - luma) * saturation
        middle = pixels.mean((1, 2, 3), keepdim=True)
        return ((pixels - middle) * contrast + middle * brightness).clamp_(0, 1)

    def _occlude(self, pixels: Tensor, strengths: list[Strength]) -> None:
        size = pixels.shape[-1]
        for index in np.flatnonzero(self._random.random(len(strengths)) < [s.occlude for s in strengths]):
            height, width = self._random.integers(size // 8, size // 3, 2)
            top, left = self._random.integers(0, size - height), self._random.integers(0, size - width)
            colour = torch.from_numpy(self._random.random((3, 1, 1), dtype=np.float32))
            pixels[index, :, top : top + height, left : left + width] = colour

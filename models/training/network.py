"""The picture tower and the text head."""

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution with batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two convolutions around a shortcut, kept with probability `1 - drop` for each picture while training."""

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.first, self.second = convolution(width, width), convolution(width, width)
        self.drop = drop

    def forward(self, features: Tensor) -> Tensor:
        change = self.second(functional.relu(self.first(features)))
        if self.training and self.drop:
            kept = torch.rand(len(features), 1, 1, 1, device=features.device) >= self.drop
            change = change * (kept / (1 - self.drop)).to(change.dtype)
        return functional.relu(features + change)


class PictureTower(nn.Module):
    """A small residual network: normalised pixels [batch, 3, size, size] to unit vectors [batch, dimensions]."""

    def __init__(self, widths: Sequence[int], dimensions: int, drop: float = 0.05) -> None:
        super().__init__()
        stages: list[nn.Module] = [convolution(3, widths[0], 2), nn.ReLU()]
        for inputs, outputs in pairwise(widths):
            stages += [convolution(inputs, outputs, 2), nn.ReLU(), Residual(outputs, drop)]
        self.stages = nn.Sequential(*stages)
        self.project = nn.Linear(widths[-1], dimensions)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.stages(pixels).mean((2, 3))
        return functional.normalize(self.project(features).float(), dim=-1)


class TextHead(nn.Module):
    """Two layers and a shortcut from the text model's vectors [batch, inputs] to unit vectors [batch, dimensions]."""

    def __init__(self, inputs: int, dimensions: int, hidden: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        self.shortcut = nn.Linear(inputs, dimensions)
        self.inner = nn.Sequential(
            nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dimensions)
        )

    def forward(self, vector: Tensor) -> Tensor:
        # The text model's vectors have length 1, so each number is tiny: scale to about unit variance first.
        scaled = vector * vector.shape[-1] ** 0.5
        return functional.normalize(self.shortcut(scaled) + self.inner(scaled), dim=-1)


class Towers(nn.Module):
    """Both towers and the learned sharpness of their cosines."""

    def __init__(self, widths: Sequence[int], dimensions: int, text_inputs: int = 384) -> None:
        super().__init__()
        self.image = PictureTower(widths, dimensions)
        self.text = TextHead(text_inputs, dimensions)
        self.log_scale = nn.Parameter(torch.tensor(2.7))

    def scale(self) -> Tensor:
        """Return what cosines are multiplied by, at most 60."""
        return self.log_scale.exp().clamp(max=60.0)


class Average:
    """A moving average of a module's weights: what is exported."""

    def __init__(self, module: Towers, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, module: Towers) -> None:
        """Move the average towards `module`; faster while there have been few updates."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        current = module.state_dict()
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1 - decay)
            else:
                value.copy_(current[name])

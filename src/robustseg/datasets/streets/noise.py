"""Repeating noise textures: smooth clouds, fine grain and leaves, made once from fixed random numbers."""

import functools

import torch
from torch import Tensor
from torch.nn import functional

SIZE = 256
LEAVES = 64


@functools.cache
def _plane() -> Tensor:
    """`[1, 3, SIZE + 2, SIZE + 2]`: white grain, soft clouds, other clouds; each about 0 with deviation 1; repeats."""
    generator = torch.Generator().manual_seed(20)
    white = torch.randn(3, SIZE, SIZE, generator=generator)
    fy, fx = torch.fft.fftfreq(SIZE)[:, None], torch.fft.fftfreq(SIZE)[None]
    radius = (fx * fx + fy * fy).sqrt().clamp_min(1 / SIZE)
    power = torch.stack([radius**0, radius**-1.5, radius**-1.2])
    planes = torch.fft.ifft2(torch.fft.fft2(white) * power).real
    planes = (planes - planes.mean((1, 2), keepdim=True)) / planes.std((1, 2), keepdim=True)
    return functional.pad(planes[None], (1, 1, 1, 1), mode="circular")


@functools.cache
def _volume() -> Tensor:
    """`[1, 1, n, n, n]`: smooth noise, uniform in 0 to 1; repeats."""
    white = torch.randn(LEAVES, LEAVES, LEAVES, generator=torch.Generator().manual_seed(21))
    f = torch.fft.fftfreq(LEAVES)
    radius = (f[:, None, None] ** 2 + f[None, :, None] ** 2 + f[None, None] ** 2).sqrt()
    noise = torch.fft.ifftn(torch.fft.fftn(white) / (0.45 + radius)).real.flatten()
    ranks = torch.empty_like(noise)
    ranks[noise.argsort()] = torch.linspace(0, 1, len(noise))
    return functional.pad(ranks.view(1, 1, LEAVES, LEAVES, LEAVES), (1,) * 6, mode="circular")


@functools.cache
def _table() -> Tensor:
    return torch.rand(4096, generator=torch.Generator().manual_seed(22))


def grain(u: Tensor, v: Tensor, period: float) -> Tensor:
    """The three planes `[3, n]` at points (u, v) in metres; they repeat after `period` metres."""
    place = torch.stack([u, v], -1) / period
    place = (place - place.floor()) * SIZE + 1
    grid = place * (2 / (SIZE + 2)) - 1
    return functional.grid_sample(_plane(), grid[None, None], align_corners=False)[0, :, 0]


def leafy(points: Tensor, cell: Tensor, seed: Tensor) -> Tensor:
    """Smooth noise, uniform in 0 to 1, at points `[n, 3]` in metres; features are about `cell` metres wide."""
    place = points / (cell[:, None] * LEAVES) + seed[:, None] * torch.tensor([7.3, 3.1, 5.7])
    place = (place - place.floor()) * LEAVES + 1
    grid = place * (2 / (LEAVES + 2)) - 1
    return functional.grid_sample(_volume(), grid[None, None, None], align_corners=False).flatten()


def cell_random(a: Tensor, b: Tensor, seed: Tensor | float) -> Tensor:
    """A number in 0 to 1 for each pair of whole numbers (given as floats) and seed in 0 to 1."""
    key = a.to(torch.int64) * 7919 + b.to(torch.int64) * 104729
    key = key + ((seed * 65536).to(torch.int64) if isinstance(seed, Tensor) else int(seed * 65536)) * 31
    return _table()[(key ^ (key >> 9)) & 4095]

"""The light, the air and the camera's settings of a scene."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Look:
    """Light, air and camera settings of a scene; colours are linear RGB."""

    sun: np.ndarray  # unit vector towards the sun, world axes at along 0
    sun_colour: np.ndarray
    sky_colour: np.ndarray
    horizon: np.ndarray
    clouds: float  # share of the sky, 0 to 1
    overcast: bool
    softness: float  # blur of shadow edges
    haze: float  # 1 / metres
    exposure: float
    balance: np.ndarray
    noise: float
    wet: float


def draw_look(rng: np.random.Generator) -> Look:
    """Sun or clouds, haze, exposure."""
    overcast = rng.random() < 0.3
    azimuth, height = (
        rng.uniform(0, 2 * np.pi),
        np.deg2rad(rng.uniform(22, 60) if not overcast else rng.uniform(70, 80)),
    )
    sun = np.array([np.cos(height) * np.sin(azimuth), -np.sin(height), np.cos(height) * np.cos(azimuth)])
    warm = np.clip((np.deg2rad(50) - height) / np.deg2rad(35), 0, 1)
    sun_colour = np.array([1.0, 0.95 - 0.14 * warm, 0.88 - 0.32 * warm]) * (
        rng.uniform(2.3, 3.2) if not overcast else 0.55
    )
    sky = (
        np.array([0.22, 0.40, 0.80]) * rng.uniform(0.8, 1.1)
        if not overcast
        else np.array([0.66, 0.70, 0.76]) * rng.uniform(0.8, 1.1)
    )
    horizon = np.array([0.80, 0.84, 0.90]) * rng.uniform(0.85, 1.05) if not overcast else sky * rng.uniform(0.98, 1.12)
    clouds = rng.uniform(0.0, 0.75) if not overcast else rng.uniform(0.8, 1.0)
    return Look(
        sun, sun_colour, sky, horizon, clouds, overcast, 1.0 if not overcast else 2.5,
        rng.choice([0.0004, 0.0008, 0.0018, 0.0042], p=[0.35, 0.35, 0.2, 0.1]), rng.uniform(0.85, 1.25) * (1.0 if not overcast else 1.25),
        np.array([rng.uniform(0.94, 1.06), 1.0, rng.uniform(0.94, 1.06)]), rng.uniform(0.002, 0.008), rng.random(),
    )  # fmt: skip

"""What the training runs of the skull models and of the outline network are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..training.config import RunConfig
from ..training.skull_cases import CHUNK
from ..training.synthesis.planes import PlaneConfig
from .outline_cases import MixConfig


@dataclass(frozen=True)
class HeadData:
    """head_masks: folder of atlas masks, relative to $MEDVAE_DATA or absolute. train, validation, test: their names;
    those of `test` are read by the evaluation alone. cases: how many are made; store: folder to keep them in, which
    runs may share, by default `cases` in the output."""

    head_masks: str
    train: list[str]
    validation: list[str]
    test: list[str]
    cases: int = 8192
    store: str = ""

    def __post_init__(self) -> None:
        parts = [set(self.train), set(self.validation), set(self.test)]
        if len(set().union(*parts)) < sum(map(len, parts)):
            raise ValueError("an atlas must serve only one of train, validation and test")
        if self.cases < CHUNK or self.cases % CHUNK:
            raise ValueError(f"cases must be a multiple of {CHUNK}")


@dataclass(frozen=True)
class CalibrationConfig:
    """heads: validation heads drawn for the calibration; samples: of the model for each of them and each subset."""

    heads: int = 24
    samples: int = 16

    def __post_init__(self) -> None:
        if self.heads < 1 or self.samples < 2:
            raise ValueError("heads must be positive and samples at least 2")


@dataclass(frozen=True, kw_only=True)
class SkullRun(RunConfig):
    task: ClassVar[str] = "fetal-skull"
    data: HeadData
    planes: PlaneConfig
    calibration: CalibrationConfig


@dataclass(frozen=True)
class PictureData:
    """head_masks: folder of atlas masks, hc18: folder of real planes (empty: simulated ones only), both relative to
    $MEDVAE_DATA or absolute; train, validation: names of atlases; heads: how many different ones are drawn."""

    head_masks: str
    train: list[str]
    validation: list[str]
    hc18: str = ""
    heads: int = 2000

    def __post_init__(self) -> None:
        if set(self.train) & set(self.validation):
            raise ValueError("an atlas must serve only one of train and validation")
        if self.heads < 1:
            raise ValueError("heads must be positive")


@dataclass(frozen=True, kw_only=True)
class OutlineRun(RunConfig):
    task: ClassVar[str] = "head-outline"
    data: PictureData
    mix: MixConfig

"""What a training run on images is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from ..models.autoencoder import ImageAutoencoder
from ..preprocessing.image_form import FITS, SCALINGS
from ..training.augment import Augmentation
from ..training.card import SOURCES
from ..training.config import RunConfig


@dataclass(frozen=True)
class ImageData:
    """Where images come from and how they become the model's.

    source: folder, CSV table, glob or idx file (see `training.image_sets`), relative to $MEDVAE_DATA, or to the present
    folder where it is not there. pattern: which files of a folder, as a glob within it. labels: which to keep, all if
    empty; one may stand alone. patient: a regular expression whose first group, found in a file's path below the
    source, is the patient; empty: every file is a patient of its own, or its table's column says. fit, scaling: see
    `preprocessing.image_form`.
    preparation: name of what made the files (see `medvae prepare`), "plain" for images as they are. validation, test:
    shares of the patients, for what the source does not split itself; seed: of that draw. limit: at most so many
    images, drawn by the seed, 0 for all. store: file to keep the images in as an array that is mapped into memory, for
    sets larger than that; empty: in memory. name, licence, citation, modality: for the model card; made_from: names of
    `training.card.SOURCES` instead, of synthetic images.
    """

    source: str
    pattern: str = ""
    labels: list[str | int | float] | str | int | float = field(default_factory=list)
    patient: str = ""
    fit: str = "exact"
    scaling: str = "auto"
    preparation: str = "plain"
    validation: float = 0.1
    test: float = 0.0
    seed: int = 0
    limit: int = 0
    store: str = ""
    name: str = ""
    licence: str = "not stated"
    citation: str = ""
    made_from: list[str] = field(default_factory=list)
    modality: str = "other"

    def __post_init__(self) -> None:
        if self.fit not in FITS or self.scaling not in SCALINGS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, scaling one of {', '.join(SCALINGS)}")
        if not (0 < self.validation < 1 and 0 <= self.test < 1 and self.validation + self.test < 1):
            raise ValueError("validation must be a share above 0, test one from 0, together below 1")
        if self.limit < 0:
            raise ValueError("limit must not be negative")
        if unknown := set(self.made_from) - set(SOURCES):
            raise ValueError(f"made_from must name {', '.join(SOURCES)}, not {', '.join(sorted(unknown))}")
        labels = [self.labels] if isinstance(self.labels, str | int | float) else self.labels
        object.__setattr__(self, "labels", [str(label) for label in labels])


@dataclass(frozen=True, kw_only=True)
class ImagesRun(RunConfig):
    task: ClassVar[str] = "images"
    kind: ClassVar[type[nn.Module]] = ImageAutoencoder
    data: ImageData
    augment: Augmentation = field(default_factory=Augmentation)

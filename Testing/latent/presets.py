"""The shipped configs of image autoencoders on small made-up data, for what has to hold for every one of them.

    torchrun --nproc-per-node 2 -m Testing.latent.presets CONFIG.yaml=OUTPUT …    trains each on both processes
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import SimpleITK as sitk
import torch
import yaml
from torch import Tensor, nn

from MedVAELib.__main__ import leave
from MedVAELib.latent import train as train_module
from MedVAELib.latent import validation
from MedVAELib.latent.config import ImagesRun
from MedVAELib.latent.train import train_from_config
from MedVAELib.latent.validation import ImageValidation
from MedVAELib.models import build_model
from MedVAELib.resources import resource_dir
from MedVAELib.training.config import read_config, read_settings
from MedVAELib.training.log_file import read_log
from MedVAELib.training.processes import joined
from MedVAELib.training.trainer import Trainer
from Testing.training.image_files import blobs, write_idx

NARROW = {"width": 4, "bottom": 8}
"""A model's settings that make it small enough for a test; its latents and its structure stay."""
_NARROW_PARTS = {"vqvae": {"codes": 16, "prior_depth": 1, "prior_width": 32}, "lvae": {"hidden": 16}}
_IMAGES, _BATCH = 12, 4


class Killed(BaseException):
    """Ends a run as a kill does: nothing is caught, nothing is saved."""


def preset_files() -> dict[str, Path]:
    """Every shipped config of the task images, by name."""
    files = sorted((resource_dir() / "configs").glob("*.yaml"))
    return {file.stem: file for file in files if read_settings(file)["task"] == ImagesRun.task}


def small_config(
    name: str, folder: Path, steps: int, narrow: bool = True, precision: str = "float32", checkpoint_every: int = 2
) -> Path:
    """A config in `folder`: the shipped one but for data made there, few steps and, if narrow, fewer channels."""
    file = preset_files()[name]
    config = read_config(file, ImagesRun)
    shape = [int(side) for side in config.model["shape"]]
    changed = {
        "data": {"source": str(_made(config, shape, folder / f"{name}-data")), "validation": 0.25, "test": 0.0},
        "trainer": {"steps": steps, "batch": _BATCH, "validate_every": 2, "checkpoint_every": checkpoint_every,
                    "precision": precision},
    }
    if narrow:
        changed["model"] = NARROW | _NARROW_PARTS.get(config.model_name, {})
    settings = read_settings(file)
    for section, values in changed.items():
        settings[section] = settings[section] | values
    written = folder / f"{name}.yaml"
    written.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return written


def _made(config: ImagesRun, shape: list[int], folder: Path) -> Path:
    """Images of the kind that the config reads; returns its source."""
    folder.mkdir(parents=True, exist_ok=True)
    if "idx3" in config.data.source:
        write_idx(folder, [0, 1] * (_IMAGES // 2), shape)
        return folder / "t-images-idx3-ubyte.gz"
    byte = config.data.scaling == "byte"
    rows = ["file,case,patient,label,split"]
    for i in range(_IMAGES):
        values = blobs(shape, i)
        image = sitk.GetImageFromArray((255 * values).astype("uint8") if byte else values)
        file = folder / "train" / f"kl{i % 2}" / f"{i:07d}L.png" if byte else folder / f"{i:07d}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(file))
        rows.append(f"{file.name},case{i},patient{i},{'ab'[i % 2]},")
    if byte:
        return folder
    (folder / "images.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder / "images.csv"


@contextmanager
def without_pictures() -> Iterator[None]:
    """Within, trainings draw nothing: that takes most of the time of so short ones."""
    with (
        patch.object(ImageValidation, "draw", lambda self: {}),
        patch.object(validation, "draw_curves"), patch.object(validation, "tensorboard"),
        patch.object(train_module, "draw_curves"),
    ):
        yield


def train(config: Path, output: Path, resume: bool = False) -> dict[str, object]:
    """Trains on the CPU; returns the checkpoint."""
    train_from_config(config, output, resume, "cpu")
    return checkpoint(output)


@contextmanager
def killed_at(step: int, kill: Callable[[], None]) -> Iterator[None]:
    """Within, a training calls kill() instead of doing step `step` (counted from 0)."""
    update = Trainer._update

    def updated(self, batch):
        if self.step == step:
            kill()
        return update(self, batch)

    Trainer._update = updated
    try:
        yield
    finally:
        Trainer._update = update


def kill() -> None:
    raise Killed


def checkpoint(output: Path) -> dict[str, object]:
    return torch.load(output / "checkpoint.pt", weights_only=True)


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Over all weights and buffers."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def untrained(config: Path) -> nn.Module:
    """The model that a run of the config starts from."""
    run = read_config(config, ImagesRun)
    torch.manual_seed(run.trainer.seed)
    return build_model(run.model_name, run.model_settings)


def share_that_differs(config: Path, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """How far two trained states are from one another, relative to how far the first is from where it started: root
    sum of squares over all weights that learn. Two runs with different noise or data come to about 1."""
    start = {name: value.detach() for name, value in untrained(config).named_parameters() if value.requires_grad}
    apart = sum(float((one[name] - other[name]).double().square().sum()) for name in start)
    moved = sum(float((one[name] - value).double().square().sum()) for name, value in start.items())
    return (apart / moved) ** 0.5


def last_validation(output: Path) -> dict[str, float]:
    return [line["validation"] for line in read_log(output) if "validation" in line][-1]


def main() -> None:
    with joined("cpu") as (device, _), without_pictures():
        for pair in sys.argv[1:]:
            config, _, output = pair.rpartition("=")
            train_from_config(Path(config), Path(output), device=device)
    leave(0)


if __name__ == "__main__":
    main()

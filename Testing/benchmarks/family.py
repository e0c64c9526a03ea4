"""One table of the family of image autoencoders, from data to page:

    python -m Testing.benchmarks.family NAME [--work DIR]

NAME is the rest of the name of a file `family_NAME.py` beside this one, which has `main(work)`: it trains what it needs
below `work` (what is there already with the same config is used again), measures, and writes its page and picture here.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

from MedVAELib.latent.config import ImageData
from MedVAELib.latent.table import LatentTable
from MedVAELib.latent.train import train_from_config
from MedVAELib.resources import resource_dir
from MedVAELib.training.config import read_settings, source_path
from MedVAELib.training.image_sets import ImageSet, read_images

HERE = Path(__file__).parent
WORK = Path("runs/family")
NO_MODEL = "no model: the images themselves"
_RISE = 0.01
"""Of the validation error in the last quarter of a training, above which it is no longer noise."""


def names() -> list[str]:
    return sorted(file.stem.removeprefix("family_") for file in HERE.glob("family_*.py"))


def preset(name: str, model: dict[str, object] | None = None, **trainer: object) -> dict[str, Any]:
    """A config that MedVAE ships, with some settings of the model and the trainer changed: short runs for one core."""
    settings = read_settings(resource_dir() / "configs" / f"{name}.yaml")
    return settings | {"trainer": settings["trainer"] | trainer, "model": settings["model"] | (model or {})}


def trained(name: str, config: dict[str, Any], work: Path) -> Path:
    """The bundle of a training, which is run or resumed unless it is there, made with this very config."""
    import yaml

    text, file, output = yaml.safe_dump(config, sort_keys=False), work / f"{name}.yaml", work / name
    same = file.exists() and file.read_text(encoding="utf-8") == text
    bundle = output / "bundle" / str(config["bundle"]["name"])
    if same and (bundle / "metadata.json").exists():
        return bundle
    work.mkdir(parents=True, exist_ok=True)
    if not same:
        shutil.rmtree(output, ignore_errors=True)  # a training is never written over
    file.write_text(text, encoding="utf-8")
    return train_from_config(file, output, same and (output / "checkpoint.pt").exists(), progress=_tell(name))


def images_of(config: dict[str, Any]) -> ImageSet:
    """The images of a config, in the parts in which its training has them."""
    data = ImageData(**config["data"])
    return read_images(source_path(data.source), data.pattern, config["model"]["shape"], data.labels, data.patient,
                       data.fit, data.scaling, data.validation, data.test, data.seed, data.limit)


def pixels(images: ImageSet) -> LatentTable:
    """The images as if they were their own latents: what a linear model makes of them without any autoencoder."""
    return LatentTable(images.cases, images.patients, images.images.reshape(len(images), -1), None, images.labels,
                       images.splits, images.tags)


def training_note(run: Path) -> str:
    """Steps, time and the end of the validation curve of a training, in a sentence; after an early stop, of what was
    kept."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last, curve = lines[-1], {line["step"]: line["validation"] for line in lines if "validation" in line}
    watched = "mse" if "mse" in list(curve.values())[-1] else "loss"
    done = f"{last['step']} steps in {last['seconds'] / 60:.0f} min; "
    if "stopped_early_weights_of" in last:
        kept = last["stopped_early_weights_of"]
        return f"{done}stopped early, weights of step {kept} with a validation {watched} of {curve[kept][watched]:.5f}."
    values = [line[watched] for line in curve.values()]
    moved = values[-1] / values[max(0, len(values) * 3 // 4 - 1)] - 1
    past = ": past its best" if moved > _RISE else ""
    told = f"{done}validation {watched} {values[-1]:.5f}, {moved:+.1%} since three quarters of that{past}."
    return told.replace("-", "−")


def _tell(name: str):
    told = [-1]

    def listener(stage: str, fraction: float, message: str = "") -> None:
        if int(20 * fraction) > told[0]:
            told[0] = int(20 * fraction)
            print(f"{name}: {message or stage}", flush=True)

    return listener


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=names())
    parser.add_argument("--work", type=Path, default=WORK, help="folder for trainings; never committed")
    chosen = parser.parse_args()
    importlib.import_module(f"Testing.benchmarks.family_{chosen.name}").main(chosen.work)


if __name__ == "__main__":
    main()

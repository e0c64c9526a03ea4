"""What the metadata and the model cards of all bundles have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..bundle import Bundle, load_bundle, save_bundle
from .config import RunConfig

SOURCES: dict[str, dict[str, str]] = {
    "label-maps": {
        "name": "20 label maps of heads", "source": "SynthSeg repository (Billot et al. 2023)",
        "licence": "Apache-2.0", "used_for": "anatomy of the synthetic scans",
    },
    "stroke-masks": {
        "name": "362 acute stroke masks", "source": "SOOP repository", "licence": "BSD-2-Clause",
        "used_for": "shapes of lesions pasted into the synthetic scans",
    },
    "ms-masks": {
        "name": "28 multiple sclerosis masks", "source": "Lesjak et al. 2017, Ljubljana", "licence": "CC-BY-4.0",
        "used_for": "shapes of lesions pasted into the synthetic scans",
    },
}
"""What synthetic scans are made from, for the training data of a card."""


def common_metadata(config: RunConfig) -> dict[str, object]:
    """The entries that every task's bundle has alike."""
    return {
        "name": config.bundle.name, "version": config.bundle.version,
        "changelog": config.bundle.changelog or {config.bundle.version: "first release"},
        "required_packages_version": {}, "authors": config.bundle.authors, "copyright": config.bundle.licence,
        "intended_use": "Research use only.",
    }


def training_record(config: RunConfig, steps: int, seconds: float, kept: int | None = None) -> dict[str, object]:
    """How long a model was trained, for `results`. kept: the step that the weights are of, if not the last."""
    record = {"steps": steps, "batch": config.trainer.batch, "hours": round(seconds / 3600, 2)}
    return record if kept in (None, steps) else record | {"weights_of_step": kept}


def without_folders(text: str) -> str:
    """A path of this computer as its last part: where a user's data lie is nobody's business who gets the bundle."""
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute():
            return kind(text).name
    return text


def card(metadata: dict[str, object], limits: str, middle: Sequence[str] = ()) -> str:
    """The README.md of a bundle, in Markdown; middle: lines between the training data and what was measured."""
    medvae = metadata["medvae"]
    training = medvae["results"]["training"]
    kept = f" Weights of step {training['weights_of_step']}, the best." if "weights_of_step" in training else ""
    lines = [
        f"# {metadata['name']} {metadata['version']}", "", str(metadata["description"]), "", "## Training", "",
        f"Model `{medvae['model']}`, {training['steps']} steps of {training['batch']}, {training['hours']} hours."
        f"{kept} {training.get('note', '')}".strip(), "", "| data | source | licence | used for |", "|---|---|---|---|",
    ]
    lines += [f"| {without_folders(d['name'])} | {without_folders(d['source'])} | {d['licence']} | {d['used_for']} |"
              for d in medvae["training_data"]]
    lines += ["", *middle, *([""] if middle else []), "## Measured", ""]
    tables = {title: text for title, text in medvae["results"].items() if isinstance(text, str)}
    if not tables:
        lines.append("Not measured yet: run `medvae evaluate`.")
    for title, text in tables.items():
        lines += [f"### {title}", "", text, ""]
    return "\n".join([*lines, "", "## Limits", "", limits, ""])


def attach_results(
    bundle: str | Path | Bundle, tables: dict[str, str], write_card: Callable[[dict[str, object]], str], note: str = ""
) -> Bundle:
    """Writes measured tables (Markdown, by title) and a note on training into a bundle's metadata and card.

    write_card: the task's own, from metadata to README.md.
    """
    bundle = load_bundle(bundle)
    metadata = {key: value for key, value in bundle.metadata.items() if not key.endswith("_version")}
    metadata["name"] = bundle.name
    results = {**metadata["medvae"]["results"], **tables}
    results["training"] = {**results["training"], **({"note": note} if note else {})}
    metadata["medvae"] = {**metadata["medvae"], "results": results}
    metadata["required_packages_version"] = bundle.metadata["required_packages_version"]
    return save_bundle(bundle.path, metadata, bundle.state_dict(), write_card(metadata), bundle.weights_form)

"""Cases and training of the outline network: reproducible, outline with image, planes without a head empty."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from MedVAELib.bundle import load_bundle
from MedVAELib.errors import InputError
from MedVAELib.skull import train_outline
from MedVAELib.skull.config import OutlineRun
from MedVAELib.skull.outline_cases import (
    MixConfig,
    OutlineCaseMaker,
    augmented,
    degraded,
    outline_batch,
    outline_stream,
)
from MedVAELib.skull.train_outline import circumference_mm, dice
from MedVAELib.training.config import read_config
from MedVAELib.training.synthesis.random import Draw

from ..training.test_hc18 import write_set

CONFIG = """
task: head-outline
data: {{head_masks: heads, hc18: hc18, train: [a], validation: [b]}}
mix: {{real: {real}, empty: 0.3}}
model: {{name: head_outline, width: 2}}
trainer: {{steps: 2, batch: 4, validate_every: 2}}
bundle: {{name: tiny-outline, version: 0.0.1}}
"""


def picture(seed: int) -> SimpleNamespace:
    """A bright disc on grey that is its own outline, off the middle."""
    line = torch.arange(192.0)
    away = ((line[:, None] - 80 - seed % 7) ** 2 + (line[None] - 110) ** 2).sqrt()
    outline = (40.5 - away).clamp(0, 1)
    return SimpleNamespace(image=0.2 + 0.6 * outline, outline=outline)


def maker(planes: list[torch.Tensor] | None = None, **mix) -> OutlineCaseMaker:
    return OutlineCaseMaker(picture, planes or [], MixConfig(**mix))


def test_a_case_depends_on_its_number_alone():
    make = maker(empty=0.5)
    first, _ = make(5), make(6)
    again = make(5)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]) and first[2] == again[2]


def test_outlines_move_with_their_images():
    for seed in range(12):
        one = picture(seed)
        image, outline = augmented(Draw(seed), torch.stack([one.image, one.outline]), MixConfig())
        inside = image[outline > 0.99]
        assert outline.sum() > 500 and inside.mean() > 0.75
        assert image[outline < 0.01].max() < 0.85 and image[outline < 0.01].mean() < 0.25


def test_planes_without_a_head_have_no_outline_and_the_share_is_kept():
    cases = [maker(empty=0.4)(seed) for seed in range(120)]
    empty = [case for case in cases if case[2] == 0]
    assert 25 < len(empty) < 75
    assert all(case[1].sum() == 0 for case in empty)
    assert all(case[1].sum() > 0 for case in cases if case[2] == 1)
    assert all(case[0].shape == (192, 192) and 0 <= case[0].min() and case[0].max() <= 1 for case in cases)


def test_real_planes_are_used_as_often_as_told():
    real = [torch.stack([torch.full((135, 200), 0.9), torch.ones(135, 200)])]
    whole = [maker(real, real=1.0, empty=0.0)(seed)[1].mean() > 0.2 for seed in range(20)]
    none = [maker(real, real=0.0, empty=0.0)(seed)[1].mean() > 0.2 for seed in range(20)]
    assert sum(whole) > 15 and sum(none) == 0


def test_degradation_keeps_range_and_black_borders():
    image = torch.zeros(192, 192)
    image[40:150] = 0.8
    for seed in range(20):
        worse = degraded(Draw(seed), image)
        assert 0 <= worse.min() and worse.max() <= 1 and worse[:30].max() == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_the_batches_from_its_start_on_in_order_whoever_makes_them(workers):
    stream, threads = outline_stream(maker, 3, 1, 4, workers), torch.get_num_threads()
    torch.set_num_threads(1)  # as in background processes: more of them round differently
    try:
        for number in range(4, 8):
            for a, b in zip(next(stream), outline_batch(maker(), 1, number, 3), strict=True):
                assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)
    stream.close()


def test_measures_of_a_disc():
    disc = picture(0).outline[None, None]
    assert float(circumference_mm(disc, torch.tensor([0.5]))) == pytest.approx(2 * 3.14159 * 40 * 0.5, rel=0.01)
    assert float(dice(disc, disc)) == 1.0 and float(dice(disc, disc.roll(100, 2))) == 0.0


@pytest.mark.parametrize("real", [0.5, 0.0])
def test_from_config_to_a_bundle(tmp_path, monkeypatch, real):
    for name in ("012_HC", "011_HC"):  # one to train on, one for validation
        write_set(tmp_path / "hc18", name)
    table = "filename,pixel,hc\n012_HC.png,0.5,134.4\n011_HC.png,0.5,134.4\n"
    (tmp_path / "hc18" / "pixel_size_and_HC.csv").write_text(table)
    monkeypatch.setenv("MEDVAE_DATA", str(tmp_path))
    monkeypatch.setattr(train_outline, "read_head_shapes", lambda folder, names: names)
    monkeypatch.setattr(train_outline, "HeadPopulation", lambda shapes, size: SimpleNamespace(device="cpu"))
    monkeypatch.setattr(train_outline, "PictureMaker", lambda pool, size: picture)
    (tmp_path / "config.yaml").write_text(CONFIG.format(real=real))
    bundle = load_bundle(train_outline.train_from_config(tmp_path / "config.yaml", tmp_path / "out", device="cpu"))
    assert bundle.model == "head_outline"
    assert {"curves.png", "outlines.png", "checkpoint.pt"} <= {file.name for file in (tmp_path / "out").iterdir()}
    line = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])["validation"]
    assert {"dice real", "dice simulated", "hc error mm", "head told apart"} <= set(line)
    assert ("HC18" in str(bundle.metadata["medvae"]["training_data"])) == (real > 0)


@pytest.mark.parametrize(("old", "new", "words"), [
    ("[b]", "[a]", "only one of"), ("empty: 0.3", "empty: 1.0", "shares"), ("width: 2", "width: 2}\nother: {", "other"),
])
def test_bad_configs_are_one_sentence(tmp_path, old, new, words):
    (tmp_path / "config.yaml").write_text(CONFIG.format(real=0.5).replace(old, new))
    with pytest.raises(InputError, match=words):
        read_config(tmp_path / "config.yaml", OutlineRun)

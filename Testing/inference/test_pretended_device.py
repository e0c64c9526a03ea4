"""On a pretended GPU every tensor stays where it belongs, down the memory ladder and when resuming; see `fake_cuda`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from MedVAELib.anomaly.detector import Detector
from MedVAELib.anomaly.prepare import prepare_scan
from MedVAELib.anomaly.score_maps import sample_maps
from MedVAELib.evaluation.autoencoders import _differentiable
from MedVAELib.inference import Engine
from MedVAELib.inference import engine as engine_module
from MedVAELib.latent.model import LatentModel
from MedVAELib.models import build_model
from MedVAELib.networks.healthy_anatomy import HealthyAnatomyNet
from MedVAELib.progress import CancelToken, no_progress
from MedVAELib.scan import Scan
from MedVAELib.skull.predictor import SkullPredictor
from MedVAELib.training.brains import load_synthesiser
from MedVAELib.training.synthesis import star_shapes
from MedVAELib.training.synthesis.brains import SynthesisConfig
from MedVAELib.training.synthesis.heads import HeadPopulation, HeadShape
from MedVAELib.training.synthesis.random import Draw
from MedVAELib.training.trainer import Trainer, TrainerConfig
from MedVAELib.worker.warm import WarmSkull

from ..fake_cuda import CPU, pretended
from ..latent.bundles import image_bundle
from ..models.blobs import SMALL, blobs
from ..models.ellipsoids import ellipsoids
from ..models.test_head_outline import discs
from ..skull.bundles import outline_bundle, shape_bundle
from ..training.heads import write_head
from .networks import before_decoding, small_net

GRID = (32, 48, 32)
WEIGHTS = np.linspace(0, 1, 9, dtype=np.float32)
KINDS = ["cuda", "mps"]


@contextmanager
def single_numbers_apart() -> Iterator[None]:
    """On the CPU, too, single numbers come from a generator of their own, as they do beside a GPU."""
    plain = Draw.__init__

    def apart(self: Draw, seed: int, device: torch.device | str = "cpu") -> None:
        plain(self, seed, device)
        self._single = torch.Generator().manual_seed(seed)

    with patch.object(Draw, "__init__", apart):
        yield


def test_a_detection(head_image):
    """With the shipped detector, to the maps on the scan; their numbers are held to the CPU's on real GPUs."""
    scan = Scan.from_image(head_image(size_ijk=(40, 48, 30), spacing_mm=(4.5, 4.5, 6)))
    detector = Detector.load(device="cpu")
    model = build_model(detector.bundle.model, detector.bundle.config)
    model.load_state_dict(detector.bundle.state_dict())
    with pretended("cuda"):
        maps = sample_maps(prepare_scan(replace(detector, engine=Engine("cuda", "float32").load(model)), scan), 2)
        assert maps.brain_box.any() and 0 < maps.std().max() < np.inf
        assert np.isfinite(maps.raw("kl_gradient", "flair", 1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_down_the_ladder_to_the_cpu(kind):
    """What was encoded on the device is decoded by the CPU, with its numbers."""

    def only_on_the_cpu(z: Tensor) -> None:
        if z.device.type != "cpu":
            raise torch.OutOfMemoryError("out of memory")

    scan = np.random.default_rng(0).random(GRID, dtype=np.float32)
    model = before_decoding(small_net(), only_on_the_cpu)
    cpu = Engine("cpu", "float32").load(model)
    wanted = cpu.moments(cpu.encode(scan), 3, WEIGHTS)
    with pretended(kind):
        engine = Engine(kind, "float32", batch=2).load(model)
        found = engine.moments(engine.encode(scan), 3, WEIGHTS)
    assert engine.device == CPU and len(engine.steps) == (3 if kind == "cuda" else 2)
    np.testing.assert_allclose(found.std, wanted.std, atol=5e-3)  # the skips passed through bfloat16


@pytest.mark.parametrize("kind", [RuntimeError, TypeError])
def test_metal_may_refuse_in_errors_of_any_kind(kind):
    class Refused(HealthyAnatomyNet):
        places = ("mps",)

        def encode(self, x: Tensor):
            if x.device.type in self.places:
                raise kind("MPSNDArray cannot do this")
            return super().encode(x)

    scan = np.zeros((32, 32, 32), np.float32)
    with pretended("mps"):
        engine = Engine("mps", "float32").load(small_net(Refused))
        engine.encode(scan)
        assert engine.device == CPU and not engine.steps and "cannot do this" in engine.describe()["reasons"][-1]
        Refused.places = ("mps", "cpu")  # a mistake of ours
        with pytest.raises(kind, match="cannot do this"):
            Engine("mps", "float32").load(small_net(Refused)).encode(scan)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_float32_keeps_all_its_bits_and_the_callers_setting_comes_back(precision):
    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("this torch has one switch for all kinds of operation")
    before, seen = torch.backends.cudnn.conv.fp32_precision, []

    class Telling(HealthyAnatomyNet):
        def encode(self, x: Tensor):
            seen.append(torch.backends.cudnn.conv.fp32_precision)
            return super().encode(x)

    with pretended("cuda"):
        engine = Engine("cuda", precision).load(small_net(Telling))
        engine.encode(np.zeros((32, 32, 32), np.float32))
    assert seen == ["ieee" if precision == "float32" else before]
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_a_graph_is_captured_for_many_batches_alone_and_only_the_last_is_kept(monkeypatch):
    captured = []

    class Graph:
        def __init__(self, decode, z, context):
            captured.append(tuple(z.shape))
            self.decode, self.context = decode, context

        def load_context(self, context):
            self.context = context

        def __call__(self, z):
            return self.decode(z, self.context)

    monkeypatch.setattr(engine_module, "GraphedDecoder", Graph)
    small, large = np.zeros((32, 32, 32), np.float32), np.zeros(GRID, np.float32)
    with pretended("cuda"):
        engine = Engine("cuda", "float32", batch=2).load(small_net())
        for scan, samples, graphs in ((small, 5, 0), (small, 6, 1), (small, 2, 1), (large, 7, 2), (small, 6, 3)):
            engine.moments(engine.encode(scan), samples, WEIGHTS)
            assert len(captured) == graphs
        assert engine.describe()["cuda_graphs"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_skulls_models(kind, tmp_path):
    shape, outline = shape_bundle(tmp_path / "shape"), outline_bundle(tmp_path / "outline")
    planes, present, _ = ellipsoids(1)
    images = torch.rand(1, 96, 96, generator=torch.Generator().manual_seed(0))
    cpu = SkullPredictor.load(shape, "cpu", outline)
    wanted = cpu.shape.sample(planes[0], present[0], 1.0, 5)
    with pretended(kind):
        predictor = SkullPredictor.load(shape, kind, outline)
        found = predictor.shape.sample(planes[0], present[0], 1.0, 5)
        probability, head = predictor.outline.find(images)
        assert probability.device == head.device == found.measures["BPD"].device == CPU
        std = found.moments.occupancy()[1].cpu().numpy()
        # Either may compute in bfloat16, as the machine has it.
        np.testing.assert_allclose(std, wanted.moments.occupancy()[1], atol=5e-3)
        np.testing.assert_allclose(found.measures["HC"].numpy(), wanted.measures["HC"], rtol=1e-3)
        np.testing.assert_allclose(probability.numpy(), cpu.outline.find(images)[0], atol=1e-5)


def test_an_outline_model_that_fell_to_the_cpu_is_told_and_not_kept(tmp_path, monkeypatch):
    """It computes in float32 alone, so there is no rung of half precision."""
    shape, outline = shape_bundle(tmp_path / "shape"), outline_bundle(tmp_path / "outline")
    warm = WarmSkull()
    monkeypatch.setattr("MedVAELib.worker.warm.load_bundle", lambda name: outline if "outline" in str(name) else shape)
    with pretended("cuda"):
        predictor = warm.predictor("shape", "cuda")
        assert predictor.outline.precision is torch.float32
        forward = type(predictor.outline._model).forward

        def hungry(model, image):
            if image.is_cuda:
                raise torch.OutOfMemoryError("out of memory")
            return forward(model, image)

        monkeypatch.setattr(type(predictor.outline._model), "forward", hungry)
        predictor.outline.find(torch.rand(1, 64, 64))
        (step,) = predictor.describe()["memory_steps"]
        assert "cpu in float32" in step and not predictor.shape.steps
        warm.forget_if_degraded()
        assert warm.predictor("shape", "cuda") is not predictor


@pytest.mark.parametrize("kind", KINDS)
def test_a_latent_model(kind, tmp_path):
    bundle = image_bundle(tmp_path / "tiny")
    images = np.random.default_rng(0).random((19, 1, 16, 16), np.float32)
    cpu = LatentModel(bundle, "cpu")
    with pretended(kind):
        model = LatentModel(bundle, kind)
        assert model.model.updates.device.type == kind
        latents = model.encode(images)[0]
        np.testing.assert_allclose(latents, cpu.encode(images)[0], atol=1e-5)
        np.testing.assert_allclose(model.decode(latents), cpu.decode(latents), atol=1e-5)
        np.testing.assert_allclose(model.sample(3, seed=1), cpu.sample(3, seed=1), atol=1e-5)
        np.testing.assert_allclose(model.first_drawn(2), cpu.first_drawn(2), atol=1e-5)
        np.testing.assert_allclose(model.kl_per_latent(images), cpu.kl_per_latent(images), atol=1e-4)
        assert model.draw(2, 0, "a").shape == (2, 3)
        scores = _differentiable(model).anomaly_scores(torch.from_numpy(images).to(model.device))
        assert {values.device.type for values in scores.values()} == {kind}


def test_a_latent_model_halves_its_batches_before_it_leaves_the_device(tmp_path, monkeypatch):
    images = np.random.default_rng(0).random((19, 1, 16, 16), np.float32)
    bundle = image_bundle(tmp_path / "tiny")
    wanted, seen = LatentModel(bundle, "cpu").encode(images)[0], []
    with pretended("cuda"):
        model = LatentModel(bundle, "cuda")
        encode, limit = type(model.model).encode, 5

        def hungry(network, image):
            if image.is_cuda and len(image) > limit:
                raise torch.OutOfMemoryError("out of memory")
            seen.append(len(image))
            return encode(network, image)

        monkeypatch.setattr(type(model.model), "encode", hungry)
        np.testing.assert_allclose(model.encode(images)[0], wanted, atol=1e-5)
        assert seen == [4, 4, 4, 4, 3] and model.device.type == "cuda" and len(model.steps) == 2
        limit = 0
        np.testing.assert_allclose(model.encode(images)[0], wanted, atol=1e-5)
        assert model.device == CPU and not any("bfloat16" in step for step in model.steps)


def _planes() -> tuple[Tensor, ...]:
    return ellipsoids(2)


def _anatomy() -> tuple[Tensor, ...]:
    image = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    return image, torch.cat([(image > 0.5).float(), (image <= 0.5).float(), torch.zeros(1, 7, 32, 32, 32)], 1)


_SKULL, _IMAGE = {"features": 8, "width": 4}, {**SMALL, "shape": [16, 24]}
MODELS = {
    "healthy_anatomy": ({"width": 4, "latent": 2}, _anatomy), "head_outline": ({"width": 2}, lambda: discs(3, 32)),
    **{name: (_SKULL, _planes) for name in ("hcvae", "cgan")},
    **{name: (_IMAGE, lambda: (blobs(2, (16, 24)),)) for name in
       ("vae", "cevae", "lvae", "vqvae", "introvae")},
}


@pytest.mark.parametrize("name", MODELS)
def test_training_validating_and_resuming(name, tmp_path):
    settings, data = MODELS[name]

    def batches(start: int):
        while True:
            yield data()

    def trainer() -> Trainer:
        torch.manual_seed(0)
        config = TrainerConfig(steps=1, batch=len(data()[0]), validate_every=1, checkpoint_every=1, patience=5)
        return Trainer(build_model(name, settings), config, tmp_path, torch.device("cuda", 0))

    def validate(state: dict[str, Tensor], step: int) -> dict[str, float]:
        model = build_model(name, settings).to("cuda").eval()
        model.load_state_dict(state)
        with torch.no_grad():
            terms = model.loss(*(part.to("cuda") for part in data()), torch.Generator("cuda").manual_seed(0))
        return {"loss": float(terms["loss"])}

    with pretended("cuda"):
        trainer().run(batches, validate, no_progress, CancelToken())
        resumed = trainer()
        resumed.config = replace(resumed.config, steps=2)
        resumed.resume()
        assert resumed.autocast and resumed.early.weights
        for weights in (resumed.averaged, resumed.early.weights, dict(resumed.model.named_parameters())):
            assert {weight.device.type for weight in weights.values()} == {"cuda"}
        # Where it counts on the GPU, every step waits for it.
        assert {state["step"].device.type for state in resumed.optimiser.state.values()} == {"cpu"}
        assert {state["exp_avg"].device.type for state in resumed.optimiser.state.values()} == {"cuda"}
        resumed.run(batches, validate, no_progress, CancelToken())
        assert resumed.step == 2


@pytest.mark.parametrize("latents", [4, 1100])
def test_settling_needs_no_float64_on_the_device(latents):
    def settled(device: str) -> nn.Module:
        torch.manual_seed(0)
        model = build_model("vae", {**_IMAGE, "latent": latents}).eval().to(device)
        model.settle([blobs(8, (16, 24)).to(device)])
        return model

    wanted = settled("cpu")
    with pretended("mps"):
        found = settled("mps")
        for name in ("drawn_mean", "drawn_factor"):
            assert getattr(found, name).device.type == "mps"
            np.testing.assert_allclose(getattr(found, name).cpu(), getattr(wanted, name), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_are_made_on_the_device(kind):
    relief = torch.zeros(star_shapes.ROWS, star_shapes.COLUMNS)
    shapes = [HeadShape(f"GA{week}", float(week), False, relief, relief, (0.8, 0.77)) for week in (22, 30)]
    with single_numbers_apart():
        wanted = HeadPopulation(shapes, size=24)(3)
    with pretended(kind):
        found = HeadPopulation(shapes, kind, size=24)(3)
        assert found.sdf.device.type == kind and found.kind == wanted.kind
        np.testing.assert_allclose(found.sdf.cpu().numpy(), wanted.sdf, atol=1e-3)


def test_brains_are_made_on_the_device(tmp_path):
    heads, small = write_head(tmp_path), SynthesisConfig(shape=(48, 48, 48), spacing_mm=5.0)
    with single_numbers_apart():
        wanted = load_synthesiser(heads, None, small)(3)
    with pretended("cuda"):
        found = load_synthesiser(heads, None, small, "cuda")(3)
        assert found.image.device.type == found.target.device.type == "cuda"
        np.testing.assert_allclose(found.image.cpu().numpy(), wanted.image, atol=1e-3)

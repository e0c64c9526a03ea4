"""`predict_skull`: what it gives back, what it refuses, what it warns about; on small untrained bundles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MedVAELib.bundle import FEW_SKULL_SAMPLES, Bundle
from MedVAELib.errors import BundleError, Cancelled, DeviceMemoryError, InputError, UsageError
from MedVAELib.inference import device as device_module
from MedVAELib.preprocessing.outlines import MARGIN, SIZE
from MedVAELib.progress import CancelToken
from MedVAELib.resources import resource_dir
from MedVAELib.skull.planes import PlaneImage
from MedVAELib.skull.predict import SkullPredictor, network_input, predict_from_outlines, predict_skull
from MedVAELib.skull.surface import points_of, std_of
from MedVAELib.skull_outputs import biometry_record
from MedVAELib.standard_planes import PLANES

from .bundles import bright_outline, outline_bundle, shape_bundle
from .heads import AXES_MM, open_edges, plane_with_head


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return shape_bundle(folder / "shape"), outline_bundle(folder / "outline")


@pytest.fixture(scope="module")
def predictor(bundles):
    made = SkullPredictor.load(bundles[0], "cpu", bundles[1])
    made.outline.find = bright_outline
    return made


def images() -> dict[str, PlaneImage]:
    z, y, x = AXES_MM
    drawn = {"axial": plane_with_head((y, x), angle=1.2), "sagittal": plane_with_head((y, z), angle=0.4),
             "coronal": plane_with_head((z, x), angle=0.0)}
    return {name: PlaneImage.from_array(picture, 0.4, name) for name, picture in drawn.items()}


@pytest.fixture(scope="module")
def result(predictor):
    return predict_skull(images(), predictor=predictor, samples=6, ga_weeks=30.0)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["without bfloat16", "with bfloat16"])
def of_another_cpu(request, bundles, monkeypatch):
    """The predictor as a CPU of the other kind makes it, too, and the number format that it computes in."""
    monkeypatch.setattr(device_module, "cpu_bfloat16_problem", lambda: "none" if request.param is torch.float32 else "")
    made = SkullPredictor.load(bundles[0], "cpu", bundles[1])
    made.outline.find = bright_outline
    return made, request.param


def test_cpus_with_and_without_bfloat16_agree(of_another_cpu, result):
    made, precision = of_another_cpu
    found = predict_skull(images(), predictor=made, samples=6, ga_weeks=30.0)
    assert made.shape.precision is precision
    for one, other in zip(found.measures, result.measures, strict=True):
        assert one.value == pytest.approx(other.value, rel=3e-3), one.name


def test_volumes_share_one_head_frame(result):
    for image, kind in ((result.probability, sitk.sitkFloat32), (result.mask, sitk.sitkUInt8),
                        (result.std, sitk.sitkFloat32)):
        assert image.GetPixelID() == kind and image.GetSize() == (SIZE,) * 3
        assert image.GetSpacing() == pytest.approx((result.spacing_mm,) * 3)
        middle = image.TransformContinuousIndexToPhysicalPoint(((SIZE - 1) / 2,) * 3)
        assert middle == pytest.approx((0, 0, 0), abs=1e-6)
        right = image.TransformIndexToPhysicalPoint((SIZE - 1, SIZE // 2, SIZE // 2))
        assert right[0] < 0  # LPS: the right is negative
    assert result.spacing_mm == pytest.approx(MARGIN * 2 * AXES_MM[1] / SIZE, rel=0.01)


def test_mask_surface_and_probability_agree(result):
    probability, mask = (sitk.GetArrayFromImage(image) for image in (result.probability, result.mask))
    assert ((mask > 0) != (result.distance_mm > 0)).mean() < 1e-3  # specks and holes are gone
    assert ((probability > 0.5) == (result.distance_mm > 0)).all() and ((probability > 0.5) != (mask > 0)).mean() < 1e-3
    assert open_edges(result.surface) == 0
    assert off_the_surface(result).max() < 3  # an untrained network's noise is smoothed away
    assert std_of(result.surface).max() > 0.05


def off_the_surface(result) -> np.ndarray:
    """How far the mean distance at the surface's points is from 0, in voxels."""
    places = np.round(points_of(result.surface)[:, ::-1] / result.spacing_mm + (SIZE - 1) / 2).astype(int)
    return np.abs(result.distance_mm[tuple(places.T)]) / result.spacing_mm


def sample_planes() -> dict[str, PlaneImage]:
    folder = resource_dir() / "sample" / "skull"
    return {plane: PlaneImage.read(folder / f"{plane}.png", spacing_mm=0.28) for plane in PLANES}


def test_the_shipped_networks_surface_lies_where_its_distance_is_zero():
    """To what rounding to whole voxels leaves."""
    off = off_the_surface(predict_skull(sample_planes(), device="cpu", samples=8))
    assert np.percentile(off, 95) < 0.5 and off.max() < 1


def test_measures_and_planes_are_stated(result):
    assert [m.name for m in result.measures] == ["BPD", "OFD", "HC", "cephalic index", "volume"]
    assert all(m.std > 0 and m.interval[0] < m.value < m.interval[1] for m in result.measures)
    assert result.measure("BPD").percentile is not None and result.measure("volume").percentile is None
    assert result.planes_used == ["axial", "sagittal", "coronal"] and result.planes_missing == []
    assert result.provenance["bundle"] == "shape" and result.provenance["outline_bundle"] == "outline"
    assert result.provenance["input"]["axial"]["pixel_mm"] == 0.4
    about = ["Of 6 samples", "percentile", "depart from the predicted head"]  # it is untrained
    assert [text in warning for text, warning in zip(about, result.warnings, strict=True)] == [True] * 3


def test_planes_lie_through_the_centre_and_match_the_head(result):
    for found, axes in zip(result.planes, ((1, 0), (2, 1), (2, 0)), strict=True):
        matrix = found.ijk_to_ras_mm
        centre = matrix @ (found.centre_yx_px[1], found.centre_yx_px[0], 0, 1)
        assert centre[:3] == pytest.approx((0, 0, 0), abs=1e-6)
        assert np.linalg.norm(matrix[:3, :3], axis=0) == pytest.approx([0.4] * 3)
        rows, columns = np.nonzero(found.outline_yx > 0.5)
        ras = matrix[:3, :3] @ np.stack([columns, rows, 0 * rows]) + matrix[:3, 3:]
        extents = {axis: np.ptp(ras[axis]) / 2 for axis in axes}
        wanted = {axis: AXES_MM[::-1][axis] for axis in axes}
        assert extents == pytest.approx(wanted, rel=0.03), found.plane
        assert found.semi_axes_mm == pytest.approx(sorted(wanted.values(), reverse=True), rel=0.02)


def test_samples_depend_on_the_seed_alone(predictor, bundles):
    one = {"axial": images()["axial"]}
    again = SkullPredictor.load(bundles[0], "cpu", bundles[1])
    again.outline.find = bright_outline
    again.shape._batch = 3
    first, second, other = (
        predict_skull(one, predictor=p, samples=5, seed=seed)
        for p, seed in ((predictor, 4), (again, 4), (predictor, 5))
    )
    assert first.distance_mm == pytest.approx(second.distance_mm, abs=0.02)
    assert np.abs(first.distance_std_mm - other.distance_std_mm).max() > 0.05
    assert first.planes_missing == ["sagittal", "coronal"]


def test_one_sample_is_refused_and_temperature_zero_has_no_spread(predictor):
    one = {"axial": images()["axial"]}
    with pytest.raises(UsageError, match="between 2 and"):
        predict_skull(one, predictor=predictor, samples=1)
    cold = predict_skull(one, predictor=replace(predictor, temperatures={"axial": 0.0}), samples=4)
    assert float(np.abs(cold.distance_std_mm).max()) < 1e-5


def test_any_orientation_of_an_image_gives_the_same_size(predictor):
    upright = images()["axial"]
    wanted = predict_skull({"axial": upright}, predictor=predictor, samples=2)
    for turned in (upright.grey_yx[::-1], upright.grey_yx[:, ::-1], upright.grey_yx.T):
        plane = replace(upright, grey_yx=np.ascontiguousarray(turned))
        found = predict_skull({"axial": plane}, predictor=predictor, samples=2)
        assert found.spacing_mm == pytest.approx(wanted.spacing_mm, rel=0.01)


def test_outlines_alone_are_enough(predictor):
    outline = torch.zeros(120, 150)
    outline[30:80, 40:110] = 1.0
    maps, present, spacing_mm = network_input({"coronal": (outline, 1.0)})
    assert present.tolist() == [False, False, True] and maps[:2].abs().sum() == 0
    result = predict_from_outlines({"coronal": (outline, 1.0)}, predictor, samples=2)
    assert result.planes == [] and result.spacing_mm == pytest.approx(spacing_mm)
    empty = {"axial": (torch.zeros(50, 50), 1.0)}
    for planes in (empty, {"axial": (outline, 1.0), "coronal": empty["axial"]}):
        with pytest.raises(InputError, match="empty"):
            network_input(planes)


def test_wrong_arguments_are_refused(predictor):
    for planes, options, said in (
        ({}, {}, "one plane"), ({"oblique": images()["axial"]}, {}, "oblique"),
        ({"axial": images()["axial"]}, {"samples": 0}, "samples"),
        ({"axial": images()["axial"]}, {"ga_weeks": 5.0}, "gestational age"),
        ({"axial": images()["axial"]}, {"ga_weeks": float("nan")}, "gestational age"),
    ):
        with pytest.raises(UsageError, match=said):
            predict_skull(planes, predictor=predictor, **options)


def test_the_same_image_twice_is_refused(predictor):
    axial = images()["axial"]
    with pytest.raises(InputError, match="as axial and as sagittal"):
        predict_skull({"axial": axial, "sagittal": replace(axial, name="copy")}, predictor=predictor)


def test_a_picture_without_a_head_is_refused(predictor):
    noise = np.random.default_rng(0).integers(80, 89, (200, 200), dtype=np.uint8)  # darker would be brightened
    with pytest.raises(InputError, match="no outline of a head"):
        predict_skull({"axial": PlaneImage.from_array(noise, 0.5, "noise")}, predictor=predictor)


@pytest.mark.parametrize("case, said", [("small", "15 to 150 mm"), ("square", "no oval"), ("cut", "edge"),
                                        ("unsure", "does not look like")])
def test_doubtful_planes_come_with_a_warning(predictor, monkeypatch, case, said):
    picture, pixel_mm = plane_with_head(), 0.4
    if case == "small":
        pixel_mm = 0.05
    elif case == "square":
        picture = np.zeros((300, 300), np.uint8)
        picture[40:260, 140:160] = picture[140:160, 40:260] = 200
    elif case == "cut":
        picture = picture[120:]
    elif case == "unsure":
        monkeypatch.setattr(predictor.outline, "find", lambda images: (bright_outline(images)[0], torch.tensor([0.1])))
    result = predict_skull({"axial": PlaneImage.from_array(picture, pixel_mm)}, predictor=predictor, samples=2)
    assert any(said in warning for warning in result.warnings), result.warnings
    assert result.planes[0].doubts


@pytest.fixture(scope="module")
def shipped():
    return SkullPredictor.load(device="cpu")


def _turned(image: PlaneImage) -> PlaneImage:
    return replace(image, grey_yx=np.ascontiguousarray(np.rot90(image.grey_yx)))


@pytest.mark.parametrize("mistake, said", [
    (lambda planes: {**planes, "sagittal": planes["coronal"], "coronal": planes["sagittal"]},
     "better if sagittal and coronal were exchanged"),
    (lambda planes: {"axial": planes["sagittal"], "sagittal": planes["axial"]},
     "better if axial and sagittal were exchanged"),
    (lambda planes: {"axial": planes["axial"], "sagittal": planes["coronal"]},
     "better if the sagittal one were coronal"),
    (lambda planes: {**planes, "coronal": _turned(planes["coronal"])}, "better if the coronal one were turned upright"),
    (lambda planes: {**planes, "sagittal": replace(planes["sagittal"], pixel_mm=0.34)},
     "depart from the predicted head by up to"),
], ids=["exchanged", "axial and sagittal", "coronal as sagittal", "coronal on its side", "pixel size"])
def test_planes_that_do_not_fit_one_head_come_with_a_warning(shipped, mistake, said):
    result = predict_skull(mistake(sample_planes()), predictor=shipped, samples=4)
    assert any(said in warning for warning in result.warnings), (result.warnings, result.provenance["section_misfit"])


@pytest.mark.parametrize("seen", [PLANES, PLANES[:2], PLANES[:1], PLANES[1:]], ids="+".join)
def test_planes_of_one_head_come_without_one(shipped, seen):
    planes = sample_planes()
    result = predict_skull({plane: planes[plane] for plane in seen}, predictor=shipped, samples=FEW_SKULL_SAMPLES)
    assert not result.warnings and max(result.provenance["section_misfit"].values()) < 0.1


def test_cancelling_takes_effect_between_batches(predictor):
    cancel = CancelToken()

    def stop(stage, fraction, message=""):
        if stage == "sampling":
            cancel.cancel()

    with pytest.raises(Cancelled):
        predict_skull({"axial": images()["axial"]}, predictor=predictor, samples=400, progress=stop, cancel=cancel)


def test_progress_never_falls(predictor):
    told = []
    predict_skull({"axial": images()["axial"]}, predictor=predictor, samples=9,
                  progress=lambda stage, fraction, message="": told.append((stage, fraction)))
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert {"load", "outline", "sampling", "surface", "done"} <= {stage for stage, _ in told}


def test_out_of_memory_goes_down_the_ladder_and_ends_honestly(bundles, monkeypatch):
    predictor = SkullPredictor.load(bundles[0], "cpu", bundles[1])
    predictor.outline.find = bright_outline
    decode = type(predictor.shape._model).decode
    limit = 2

    def hungry(model, code, condition):
        if len(code) > limit:
            raise torch.OutOfMemoryError("out of memory")
        return decode(model, code, condition)

    monkeypatch.setattr(type(predictor.shape._model), "decode", hungry)
    one = {"axial": images()["axial"]}
    result = predict_skull(one, predictor=predictor, samples=8)
    assert len(result.provenance["memory_steps"]) == 1
    limit = 0
    with pytest.raises(DeviceMemoryError):
        predict_skull(one, predictor=predictor, samples=8)


def test_measures_are_as_sure_as_the_bundles_say(bundles, predictor, tmp_path):
    plain = predict_skull(images(), predictor=predictor, samples=6)
    made = SkullPredictor.load(shape_bundle(tmp_path / "shape", measures={"HC": 3.0}), "cpu", predictor.outline_bundle)
    made.outline.find = bright_outline
    wide = predict_skull(images(), predictor=made, samples=6)
    assert wide.measure("HC").std == pytest.approx(3 * plain.measure("HC").std, rel=1e-4)
    assert wide.measure("BPD").std == pytest.approx(plain.measure("BPD").std, rel=1e-4)
    assert wide.provenance["measure_widening"]["HC"] == 3.0

    def say(calibration: dict) -> None:
        metadata = predictor.outline_bundle.metadata
        made.outline_bundle = Bundle(predictor.outline_bundle.path, metadata | {
            "medvae": metadata["medvae"] | {"calibration": calibration}})

    say({"drawn_outside_mm": 0.5, "axis_error_mm": {"BPD": 4.0, "OFD": 0.0}})
    drawn = predict_skull(images(), predictor=made, samples=6)
    assert drawn.measure("BPD").std == 4.0 and drawn.measure("OFD").std == wide.measure("OFD").std
    assert drawn.measure("BPD").value == pytest.approx(wide.measure("BPD").value + 1, abs=0.01)
    assert drawn.provenance["axis_error_mm"]["BPD"] == 4.0
    for impossible in ({"axis_error_mm": {"BPD": -1}}, {"axis_error_mm": 3}, {"drawn_outside_mm": "far"}):
        say(impossible)
        with pytest.raises(BundleError, match="impossible calibration"):
            predict_skull(images(), predictor=made, samples=6)


def test_bundles_of_other_kinds_are_refused(bundles, tmp_path):
    with pytest.raises(BundleError, match="no model of fetal skulls"):
        SkullPredictor.load(bundles[1], "cpu")
    with pytest.raises(BundleError, match="no model of fetal skulls"):
        SkullPredictor.load(shape_bundle(tmp_path / "odd", shape_zyx=[64, 64, 64]), "cpu")
    for number, factors in enumerate(({"BPD": 0.0}, {"BPD": "wide"}, [2.0])):
        with pytest.raises(BundleError, match="no model of fetal skulls"):
            SkullPredictor.load(shape_bundle(tmp_path / f"wide{number}", measures=factors), "cpu")
    with pytest.raises(BundleError, match="does not find heads"):
        _ = SkullPredictor.load(bundles[0], "cpu", bundles[0]).outline
    with pytest.raises(BundleError, match="no bundle"):
        SkullPredictor.load("no-such-bundle", "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_gpu_agrees_with_cpu(bundles):
    found = []
    for device in ("cpu", "cuda"):
        predictor = SkullPredictor.load(bundles[0], device, bundles[1])
        predictor.outline.find = bright_outline
        found.append(predict_skull(images(), predictor=predictor, samples=6))
    assert found[0].distance_mm == pytest.approx(found[1].distance_mm, abs=0.2)
    assert found[0].measure("HC").value == pytest.approx(found[1].measure("HC").value, rel=2e-3)


@pytest.mark.parametrize(("weeks", "side"), [(20.0, "above the 99.9th percentile of 20 weeks"), (36.0, ""), (None, "")])
def test_a_head_off_the_chart_is_told(predictor, weeks, side):
    found = predict_skull(images(), predictor=predictor, samples=2, ga_weeks=weeks)
    told = [warning for warning in found.warnings if "percentile" in warning]
    assert bool(told) == bool(side) and all(side in warning and "pixel size" in warning for warning in told)


def test_an_age_beyond_the_charts_has_no_percentile(predictor):
    found = predict_skull({"axial": images()["axial"]}, predictor=predictor, samples=2, ga_weeks=41.3)
    assert found.ga_weeks == 41.3 and all(measure.percentile is None for measure in found.measures)
    assert any("cover 14 to 40 weeks, not 41.3" in warning for warning in found.warnings)


def test_one_plane_alone_says_what_was_not_checked(predictor):
    one = predict_skull({"coronal": images()["coronal"]}, predictor=predictor, samples=2)
    assert "coronal plane was not checked" in one.notes[0] and biometry_record(one)["notes"] == one.notes
    assert predict_skull(images(), predictor=predictor, samples=2).notes == []

"""The whole detector, with the shipped bundle, on the bundled sample and on real scans."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import average_precision_score

from MedVAELib.anomaly.detect import CUT_CM2, detect_anomalies, score_inputs
from MedVAELib.anomaly.detector import Detector
from MedVAELib.anomaly.findings import STRICTNESS
from MedVAELib.anomaly.prepare import prepare_scan
from MedVAELib.anomaly.scores import SCORES
from MedVAELib.bundle import load_bundle
from MedVAELib.errors import BundleError, Cancelled, InputError, UsageError
from MedVAELib.preprocessing.geometry import from_grid
from MedVAELib.progress import CancelToken
from MedVAELib.scan import Scan
from MedVAELib.tissues import OUTER_CSF, VENTRICLES, WHITE
from Testing.conftest import coarse_sample


@pytest.fixture(scope="module")
def detector():
    return Detector.load(device="cpu")


@pytest.fixture(scope="module")
def sample():
    """The bundled sample on a coarser grid: seconds instead of tens of seconds, the same pipeline."""
    return coarse_sample((80, 96, 80), 2.2)


@pytest.fixture(scope="module")
def detection(detector, sample):
    return detect_anomalies(Scan.from_image(sample), detector=detector, samples=2)


def test_every_volume_lies_on_the_scans_grid(detection, sample):
    for name in ("anomaly", "residual", "reconstruction", "std", "mask", "brain", "components"):
        image = getattr(detection, name)
        assert image.GetSize() == sample.GetSize() and image.GetSpacing() == sample.GetSpacing(), name
        assert image.GetOrigin() == sample.GetOrigin() and image.GetDirection() == sample.GetDirection(), name


def test_volumes_agree_with_each_other(detection, sample):
    arrays = {n: sitk.GetArrayFromImage(getattr(detection, n))
              for n in ("anomaly", "residual", "reconstruction", "std", "mask", "brain", "components")}
    brain = arrays["brain"] > 0
    assert 900 < brain.sum() * np.prod(sample.GetSpacing()) / 1000 < 2000
    scan = sitk.GetArrayFromImage(sample)
    assert np.allclose((arrays["residual"] + arrays["reconstruction"])[brain], scan[brain], atol=0.1)
    for name in ("anomaly", "residual", "std"):
        assert (arrays[name][~brain] == 0).all() and np.isfinite(arrays[name]).all()
    assert ((arrays["mask"] > 0) == (arrays["anomaly"] > detection.threshold)).all()
    assert (arrays["std"][brain] >= 0).all() and arrays["std"].std() > 0
    assert sorted(set(np.unique(arrays["components"])) - {0}) == [f.label for f in detection.findings]
    limits = {"bright": detection.threshold, "dark": detection.dark_threshold}
    excess = [f.mean - limits[f.polarity] for f in detection.findings]
    assert excess == sorted(excess, reverse=True) and min(excess) > np.log10(STRICTNESS)


CAVITY_MM = 9.0


@pytest.fixture(scope="module")
def hollow(sample, detection):
    """The sample without its skull, a ball of white matter as black as the background; and the ball."""
    brain = sitk.GetArrayFromImage(detection.brain) > 0
    white = sitk.GetArrayFromImage(detection.reconstruction)
    white = brain & (abs(white - np.median(white[brain])) < 0.1 * np.median(white[brain]))
    white &= sitk.GetArrayFromImage(detection.mask) == 0
    deepest = np.unravel_index(distance_transform_edt(white).argmax(), white.shape)
    index = np.indices(brain.shape)
    ball = sum((axis - at) ** 2 for axis, at in zip(index, deepest, strict=True)) * 2.2**2 < CAVITY_MM**2
    scan = sitk.GetImageFromArray(np.where(brain & ~ball, sitk.GetArrayFromImage(sample), 0).astype(np.float32))
    scan.CopyInformation(sample)
    return Scan.from_image(scan, modality="flair"), ball


def test_a_cavity_as_black_as_the_background_is_a_dark_finding(detector, hollow):
    scan, ball = hollow
    found = detect_anomalies(scan, detector=detector, samples=2)
    assert (sitk.GetArrayFromImage(found.brain) > 0)[ball].mean() > 0.95
    mask, score = (sitk.GetArrayFromImage(image) for image in (found.mask, found.anomaly))
    assert (mask[ball] == 2).mean() > 0.3 and not (mask[ball] == 1).any()
    (dark,) = {sitk.GetArrayFromImage(found.components)[ball & (mask == 2)].max()}
    finding = found.findings[dark - 1]
    assert finding.polarity == "dark" and finding.peak == pytest.approx(score[ball].max())
    assert finding.peak > found.dark_threshold == found.provenance["dark_threshold"] == found.threshold + 1


def test_scores_of_both_signs_tell_dark_findings(detector, hollow):
    scan, ball = hollow
    found = detect_anomalies(scan, detector=detector, samples=2, score="absolute")
    labels = set(sitk.GetArrayFromImage(found.components)[ball]) - {0}
    assert labels and {found.findings[label - 1].polarity for label in labels} == {"dark"}
    assert (sitk.GetArrayFromImage(found.mask)[sitk.GetArrayFromImage(found.components) == max(labels)] == 2).all()
    assert "bright" in {finding.polarity for finding in found.findings} and found.dark_threshold is None


def test_black_fluid_where_it_belongs_is_no_finding(detector, sample):
    maps = score_inputs(detector, Scan.from_image(sample))
    fluid = sitk.GetArrayFromImage(maps.place.put_back(maps.probability[[VENTRICLES, OUTER_CSF]].sum(0)))
    values = sitk.GetArrayFromImage(sample)
    scan = sitk.GetImageFromArray(np.where(fluid > 0.5, 0.1 * values, values).astype(np.float32))
    scan.CopyInformation(sample)
    found = detect_anomalies(Scan.from_image(scan, modality="flair"), detector=detector, samples=2)
    dark = [f.location for f in found.findings if f.polarity == "dark"]
    assert not [where for where in dark if "CSF" in where or "ventricle" in where]


def test_modality_is_decided_and_recorded(detection):
    assert detection.modality == "flair"
    assert {"bundle_sha256", "device", "seed", "timings_s", "preprocessing"} <= set(detection.provenance)


# What a storage order must not change. Flips and permutations keep every sample, so nothing may differ. An oblique
# grid is other samples of the same head, so there the maps agree as interpolation allows: splines, which blur least.
# Finer voxels, so that little is lost: correlation .94 to .95 over angles, Dice of what is flagged .82 to .83.
OBLIQUE_CORRELATION, OBLIQUE_DICE = 0.9, 0.75


@given(order=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3))
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
def test_flips_and_permutations_change_nothing(detector, sample, detection, order, flips):
    stored = sitk.Flip(sitk.PermuteAxes(sample, list(order)), list(flips), False)
    found = detect_anomalies(Scan.from_image(stored), detector=detector, samples=2)
    for name in ("anomaly", "residual", "reconstruction", "std", "mask", "components"):
        again = sitk.Flip(sitk.PermuteAxes(getattr(detection, name), list(order)), list(flips), False)
        assert sitk.GetArrayFromImage(getattr(found, name)).tobytes() == sitk.GetArrayFromImage(again).tobytes(), name
    assert len(found.findings) == len(detection.findings) > 0
    labels = sitk.GetArrayFromImage(found.components)
    for mine, other in zip(found.findings, detection.findings, strict=True):
        assert (mine.volume_ml, mine.peak, mine.location) == (other.volume_ml, other.peak, other.location)
        assert mine.peak_ras_mm == pytest.approx(other.peak_ras_mm, abs=1e-6)
        inside = np.argwhere(labels == mine.label)[:, ::-1]
        assert mine.bbox_ijk == tuple(inside.min(0))
        assert mine.bbox_size_ijk == tuple(np.ptp(inside, axis=0) + 1)


@given(angles=st.tuples(*[st.floats(-0.5, 0.5)] * 3))
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_oblique_grid_gives_the_same_map_in_space(detector, sample, detection, angles):
    turn = sitk.Euler3DTransform((0, 0, 0), *angles)
    matrix = np.array(turn.GetMatrix()).reshape(3, 3)
    oblique = sitk.Image([138, 138, 138], sitk.sitkFloat32)
    oblique.SetSpacing((1.6, 1.6, 1.6))
    oblique.SetDirection(matrix.ravel().tolist())
    oblique.SetOrigin((matrix @ np.full(3, -109.6)).tolist())
    scan = sitk.Resample(sample, oblique, sitk.Transform(), sitk.sitkBSpline)
    found = detect_anomalies(Scan.from_image(scan), detector=detector, samples=2)
    back = sitk.GetArrayFromImage(from_grid(found.anomaly, sample))
    brain = sitk.GetArrayFromImage(detection.brain) > 0
    mine, other = back[brain], sitk.GetArrayFromImage(detection.anomaly)[brain]
    assert np.corrcoef(mine, other)[0, 1] > OBLIQUE_CORRELATION
    flagged = (mine > detection.threshold), (other > detection.threshold)
    assert 2 * (flagged[0] & flagged[1]).sum() / (flagged[0].sum() + flagged[1].sum()) > OBLIQUE_DICE


@pytest.mark.parametrize("name", [name for name in SCORES if name != "zscore"])
def test_every_score_gives_a_calibrated_map(detector, sample, name):
    found = detect_anomalies(Scan.from_image(sample), detector=detector, samples=1, score=name)
    flagged = sitk.GetArrayFromImage(found.mask)[sitk.GetArrayFromImage(found.brain) > 0].mean()
    # SSIM's window is in voxels: on this coarse grid its scores stay below those it was calibrated on at 1 mm.
    assert flagged < 0.2 and sitk.GetArrayFromImage(found.anomaly).max() > (1.5 if name == "ssim" else 2)


def test_noise_is_no_brain(detector):
    noise = np.random.default_rng(0).normal(100, 20, (60, 80, 70)).astype(np.float32)
    image = sitk.GetImageFromArray(noise)
    image.SetSpacing((2.5, 2.5, 2.5))
    with pytest.raises(InputError, match="no brain was found"):
        detect_anomalies(Scan.from_image(image, name="noise"), detector=detector, samples=1)


def test_cancelling_stops_before_the_next_stage(detector, sample):
    cancel = CancelToken()
    stages = []

    def listener(stage, fraction, message=""):
        stages.append(stage)
        if stage == "anatomy":
            cancel.cancel()

    with pytest.raises(Cancelled):
        detect_anomalies(Scan.from_image(sample), detector=detector, progress=listener, cancel=cancel)
    assert "score" not in stages


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"fpr": 0.9}, {"score": "magic"}])
def test_wrong_arguments_are_one_sentence(detector, sample, wrong):
    with pytest.raises(UsageError) as error:
        detect_anomalies(Scan.from_image(sample), detector=detector, **wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("case", "least"), [("ms_isbi_02", 0.7), ("ms_ljubljana_19", 0.8)])
def test_real_ms_scans_are_well_above_plain_intensity(detector, medvae_data, case, least):
    folder = medvae_data / "brain" / "flair" / case
    truth = next(folder / name for name in ("mask1.nii.gz", "mask.nii.gz") if (folder / name).exists())
    found = detect_anomalies(Scan.read(folder / "flair.nii.gz"), detector=detector, samples=1)
    lesion = sitk.GetArrayFromImage(sitk.ReadImage(str(truth))) > 0
    region = (sitk.GetArrayFromImage(found.brain) > 0) | lesion
    ours = average_precision_score(lesion[region], sitk.GetArrayFromImage(found.anomaly)[region])
    plain = average_precision_score(lesion[region], found.scan.array_zyx()[region])
    assert ours > least and ours > plain


def test_diffuse_disease_of_white_matter_is_found_and_told(detector, medvae_data):
    scan = Scan.read(medvae_data / "brain" / "flair" / "ms_raw_patient04_study1" / "flair.nii.gz")
    healthy = prepare_scan(detector, scan)
    anatomy = healthy.anatomy
    away_mm = distance_transform_edt(anatomy.probability[VENTRICLES] <= 0.5) * detector.spacing_mm
    disease = sitk.GetImageFromArray((anatomy.probability[WHITE] * (away_mm < 16)).astype(np.float32))
    disease.CopyInformation(anatomy.grid)
    share = sitk.GetArrayFromImage(from_grid(disease, scan.image))
    brighter = sitk.GetImageFromArray((scan.array_zyx() - anatomy.offset) * (1 + 0.4 * share) + anatomy.offset)
    brighter.CopyInformation(scan.image)
    found = detect_anomalies(replace(scan, image=brighter), detector=detector, samples=1)
    flagged = sitk.GetArrayFromImage(found.mask) == 1
    assert flagged[share > 0.5].mean() > 0.7  # .2 with all white matter taken for healthy
    assert any("Around the ventricles" in warning for warning in found.warnings)
    assert healthy.fit.periventricular == 1


@pytest.mark.parametrize("damage", [
    lambda calibration: calibration["score"]["zscore"]["dwi"]["bright"]["raw"].reverse(),
    lambda calibration: calibration["score"]["zscore"]["flair"]["bright"].pop("share"),
    lambda calibration: calibration.update(score={"zscore": "none"}),
])
def test_a_damaged_calibration_is_noticed_when_the_bundle_is_loaded(damage):
    shipped = load_bundle()
    bundle = replace(shipped, metadata=deepcopy(shipped.metadata))
    damage(bundle.calibration)
    with pytest.raises(BundleError, match="calibration is incomplete"):
        Detector.load(bundle, "cpu")


def test_brain_that_is_cut_off_is_told_wherever_the_slices_lie(detector, sample):
    whole = score_inputs(detector, Scan.from_image(sample))
    assert max(whole.cut_cm2().values()) == 0
    brain = sitk.GetArrayFromImage(whole.place.put_back(whole.brain_box.astype(np.uint8)))
    top = int(np.nonzero(brain.any((1, 2)))[0].max())
    for z in range(top - 12, top - 8):
        cut = score_inputs(detector, Scan.from_image(sample[:, :, : z + 1])).cut_cm2()
        assert cut["above"] > CUT_CM2 and max(area for face, area in cut.items() if face != "above") == 0, z
    half = detect_anomalies(Scan.from_image(sample[sample.GetSize()[0] // 2 :]), detector=detector, samples=1)
    assert any("cut off on the " in warning for warning in half.warnings)
    assert any("sides are not alike" in warning for warning in half.warnings)
    assert not any("left" in finding.location or "right" in finding.location for finding in half.findings)


def test_a_lost_slice_does_not_cost_half_of_the_brain(detector, detection, sample):
    values = sitk.GetArrayFromImage(sample)
    values[len(values) // 2] = 0
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(sample)
    found = detect_anomalies(Scan.from_image(image), detector=detector, samples=1)
    volumes = [int(sitk.GetArrayViewFromImage(each.brain).sum()) for each in (found, detection)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.03)
    assert any("holds no data along its third axis and was filled in" in warning for warning in found.warnings)


def test_brightness_that_was_cut_off_is_told(detector, detection, sample):
    brain = sitk.GetArrayViewFromImage(detection.brain) > 0
    highest = float(np.quantile(sitk.GetArrayViewFromImage(sample)[brain], 0.9))
    found = detect_anomalies(Scan.from_image(sitk.Minimum(sample, highest)), detector=detector, samples=1)
    told, = (warning for warning in found.warnings if "cut off, as where it was saved as seen on a screen" in warning)
    assert 8 <= int(told.split("%")[0]) <= 12
    assert not any("cut off" in warning for warning in detection.warnings)


@pytest.mark.parametrize(("flips", "axis"), [
    ((True, True, False), "vertical"), ((False, True, False), "vertical"), ((True, False, True), "front-to-back"),
])
def test_a_head_turned_the_wrong_way_is_told(detector, detection, sample, flips, axis):
    values = sitk.GetArrayFromImage(sitk.Flip(sample, flips, False))
    turned = sitk.GetImageFromArray(values)
    turned.CopyInformation(sample)
    found = detect_anomalies(Scan.from_image(turned), detector=detector, samples=1)
    assert any(f"half a turn about the {axis} axis" in warning for warning in found.warnings)
    assert not any("half a turn" in warning for warning in detection.warnings)


@pytest.mark.parametrize("factors", [(1, 1, 0.5), (1, 1, 2)])
def test_a_wrong_voxel_size_is_told(detector, detection, sample, factors):
    stretched = sitk.Image(sample)
    stretched.SetSpacing([mm * factor for mm, factor in zip(sample.GetSpacing(), factors, strict=True)])
    found = detect_anomalies(Scan.from_image(stretched), detector=detector, samples=1)
    assert any("as no brain is" in warning for warning in found.warnings)
    assert not any("as no brain is" in warning for warning in detection.warnings)

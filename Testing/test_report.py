"""The report: the right side of the patient, the right shape, the right words, and nothing from anywhere else."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from PIL import Image  # noqa: E402

from MedVAELib.anomaly.result import Detection, Finding  # noqa: E402
from MedVAELib.report import PICTURED_FINDINGS, write_report  # noqa: E402
from MedVAELib.reporting.colours import MAX_OPACITY, ScoreScale, number  # noqa: E402
from MedVAELib.reporting.display import AXIAL, CORONAL, PLANES, SAGITTAL, Display, DisplayAxes  # noqa: E402
from MedVAELib.reporting.pictures import Painter, Spot, montage, three_planes  # noqa: E402
from MedVAELib.reporting.words import millilitres, percent, summary  # noqa: E402
from MedVAELib.scan import Scan  # noqa: E402
from Testing.browser import assert_shown_whole, browse, needs_browser  # noqa: E402

LEFT_FRONTAL = (-31.5, 46.5, 21.0)  # the middle of a voxel
THICK_SLICES_MM = (3.0, 3.0, 6.0)


def ras_of_voxels(image: sitk.Image) -> np.ndarray:
    """RAS position of every voxel, (D, H, W, 3)."""
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1)
    lps = (index * spacing) @ np.array(image.GetDirection()).reshape(3, 3).T + np.array(image.GetOrigin())
    return (lps * (-1, -1, 1)).transpose(2, 1, 0, 3)


def detection(image: sitk.Image, spheres: list[tuple[tuple[float, float, float], float]], *,
              polarity: str = "bright", name: str = "head", **changes: object) -> Detection:
    """A detection in a head whose findings are spheres (RAS centre, radius in mm) of score 9; threshold 3."""
    ras = ras_of_voxels(image)
    brain = ((ras / (64, 84, 74)) ** 2).sum(-1) <= 1
    voxel_ml = float(np.prod(image.GetSpacing())) / 1000
    sign = 1.0 if polarity == "bright" else -1.0
    score = np.where(brain, 1.0, 0.0)
    components = np.zeros(brain.shape, np.uint16)
    findings = []
    for label, (centre, radius) in enumerate(spheres, start=1):
        inside = ((ras - np.array(centre)) ** 2).sum(-1) <= radius**2
        score[inside], components[inside] = 9.0, label
        k, j, i = np.nonzero(inside)
        low, high = (i.min(), j.min(), k.min()), (i.max(), j.max(), k.max())
        findings.append(Finding(label, polarity, "left white matter", float(inside.sum() * voxel_ml), 9.0, 8.5, centre,
                                centre, tuple(map(int, low)),
                                tuple(int(b - a + 1) for a, b in zip(low, high, strict=True))))

    def like(values: np.ndarray, kind: type) -> sitk.Image:
        made = sitk.GetImageFromArray(np.ascontiguousarray(values.astype(kind)))
        made.CopyInformation(image)
        return made

    edges = np.linspace(0, 6, 31)
    made = Detection(
        scan=Scan(image, name=name), modality="flair", anomaly=like(score, np.float32),
        residual=like(np.where(components > 0, 90.0 * sign, 1.0) * brain, np.float32),
        reconstruction=like(100.0 * brain, np.float32), std=like(2.0 * brain, np.float32),
        mask=like((components > 0) * (1 if polarity == "bright" else 2), np.uint8), brain=like(brain, np.uint8),
        components=like(components, np.uint16),
        findings=findings, threshold=3.0, fpr=0.01, unit="standard deviations",
        reference_histogram={"edges": edges.tolist(), "density": np.exp(-edges[:-1]).tolist()},
        warnings=["Out of distribution: contrast <unlike> training."],
        provenance={"bundle": {"name": "flair-anatomy", "sha256": "ab" * 32}, "device": "cpu", "seed": 7,
                    "timings_s": {"prepare": 1.0, "network": np.float32(3.0), "total": 4.0}})
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def thick_head(head_image) -> sitk.Image:
    return head_image((60, 68, 32), THICK_SLICES_MM, lesion_ras_mm=LEFT_FRONTAL)


@pytest.fixture(scope="module")
def page_directory(thick_head, tmp_path_factory) -> Path:
    """A written report with nasty names and one finding more than are pictured."""
    spheres = [(LEFT_FRONTAL, 10.0)] + [((20.0, -50.0 + 15 * step, 0.0), 6.0) for step in range(PICTURED_FINDINGS)]
    directory = tmp_path_factory.mktemp("report")
    result = detection(thick_head, spheres, name='<script>alert(1)</script> & "co"')
    result.findings[0] = dataclasses.replace(result.findings[0], location="<i>left</i> white matter")
    write_report(result, directory)
    return directory


@pytest.fixture(scope="module")
def page(page_directory) -> str:
    return (page_directory / "report.html").read_text(encoding="utf-8")


def pictures_of(html: str) -> list[np.ndarray]:
    """The page's JPEG pictures in order, RGB."""
    coded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) for data in coded]


def text_of(html: str) -> str:
    return " ".join("".join(ElementTree.fromstring(html.split("\n", 1)[1]).itertext()).split())


def coloured_centre(picture: np.ndarray) -> tuple[float, float]:
    """Where the bright overlay (warm colours) lies, as shares (x, y) of the picture."""
    red, blue = picture[..., 0].astype(int), picture[..., 2].astype(int)
    rows, columns = np.nonzero((red > 150) & (red - blue > 60))
    assert rows.size > 30
    return columns.mean() / picture.shape[1], rows.mean() / picture.shape[0]


def overlays(result: Detection) -> dict[str, np.ndarray]:
    display = Display(result)
    painter = Painter(display, ScoreScale.of(np.array([9.0]), result.threshold, result.unit))
    index = display.index(result.findings[0].peak_ras_mm)
    return {plane.name: np.asarray(painter.overlay_panel(plane, index[plane.cut], 2.0)) for plane in PLANES}


# --- Geometry --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def reference_overlays(thick_head) -> dict[str, np.ndarray]:
    return overlays(detection(thick_head, [(LEFT_FRONTAL, 10.0)]))


@pytest.mark.parametrize("order, flips", [
    ((0, 1, 2), (False, False, False)), ((0, 1, 2), (True, True, False)), ((0, 2, 1), (True, False, True)),
    ((1, 0, 2), (False, True, False)), ((1, 2, 0), (False, False, True)), ((2, 0, 1), (True, True, True)),
    ((2, 1, 0), (True, False, False))])
def test_a_left_frontal_lesion_is_at_the_right_top_of_the_axial_picture(thick_head, reference_overlays, order, flips):
    stored = sitk.Flip(sitk.PermuteAxes(thick_head, order), flips)
    lesion_lps = (-LEFT_FRONTAL[0], -LEFT_FRONTAL[1], LEFT_FRONTAL[2])
    assert stored[stored.TransformPhysicalPointToIndex(lesion_lps)] > 200  # storage changed, the patient did not
    shown = overlays(detection(stored, [(LEFT_FRONTAL, 10.0)]))
    x, y = coloured_centre(shown["axial"])
    assert 0.62 < x < 0.8 and 0.1 < y < 0.4  # patient's left on the right, anterior on top
    x, y = coloured_centre(shown["coronal"])
    assert 0.62 < x < 0.8 and 0.25 < y < 0.5  # left on the right, superior on top
    x, y = coloured_centre(shown["sagittal"])
    assert 0.1 < x < 0.4 and 0.25 < y < 0.5  # anterior on the left
    for name, picture in shown.items():
        assert np.array_equal(picture, reference_overlays[name]), name


def test_letters_say_where_the_pictures_edges_lie_in_an_oblique_permuted_scan(head_image):
    turn = np.deg2rad(20)
    oblique = ((np.cos(turn), 0, np.sin(turn)), (0, 1, 0), (-np.sin(turn), 0, np.cos(turn)))
    image = sitk.Flip(sitk.PermuteAxes(head_image((40, 44, 20), (4, 4, 8), oblique), (2, 0, 1)), (True, False, True))
    axes = DisplayAxes.of(image)
    assert axes.tilt_deg == pytest.approx(20, abs=0.1)
    shape = axes.array(image).shape
    direction = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    for plane in PLANES:
        start = np.array(axes.position_ras_mm((0, 0, 0)))
        for axis, (low_letter, high_letter), flipped in ((plane.columns, plane.letters[:2], False),
                                                         (plane.rows, plane.letters[2:], plane.flip_rows)):
            corner = [0, 0, 0]
            corner[axis] = shape[axis] - 1
            step = np.array(axes.position_ras_mm(tuple(corner))) - start
            coordinate, sign = direction[low_letter if flipped else high_letter]
            assert np.argmax(np.abs(step)) == coordinate and np.sign(step[coordinate]) == sign
            assert direction[low_letter][0] == direction[high_letter][0]


def test_positions_and_display_indices_are_inverse(head_image):
    image = sitk.Flip(sitk.PermuteAxes(head_image((20, 24, 16), (3, 4, 5)), (1, 2, 0)), (False, True, True))
    axes = DisplayAxes.of(image)
    values = axes.array(image)
    for index in ((0, 0, 0), (3, 5, 7), tuple(count - 1 for count in values.shape)):
        position = axes.position_ras_mm(index)
        assert axes.index_zyx(position) == index
        left, posterior, superior = -position[0], -position[1], position[2]
        assert image[image.TransformPhysicalPointToIndex((left, posterior, superior))] == values[index]
    assert axes.index_zyx((1e6, -1e6, 1e6)) == (values.shape[0] - 1, values.shape[1] - 1, 0)


def test_a_sphere_looks_round_in_every_plane_of_a_scan_with_thick_slices(thick_head):
    for name, picture in overlays(detection(thick_head, [((-20.0, 30.0, 10.0), 24.0)])).items():
        red, blue = picture[..., 0].astype(int), picture[..., 2].astype(int)
        rows, columns = np.nonzero((red > 150) & (red - blue > 60))
        width_mm, height_mm = np.ptp(columns) / 2.0, np.ptp(rows) / 2.0
        assert width_mm == pytest.approx(48, abs=6), name
        assert height_mm == pytest.approx(48, abs=6 if name == "axial" else 9), name


def test_extent_follows_the_patient_not_the_storage(thick_head):
    stored = sitk.PermuteAxes(thick_head, (2, 0, 1))
    for image in (thick_head, stored):
        result = detection(image, [(LEFT_FRONTAL, 10.0)])
        along = DisplayAxes.of(image).extent_mm(result.findings[0].bbox_size_ijk)
        assert along == pytest.approx((20, 20, 18), abs=4)
        assert along[2] % 6 == pytest.approx(0)


# --- Pictures --------------------------------------------------------------------------------------------------------

def test_below_the_threshold_the_scan_is_untouched(thick_head):
    result = detection(thick_head, [(LEFT_FRONTAL, 10.0)])
    display = Display(result)
    painter = Painter(display, ScoreScale.of(np.array([9.0]), 3.0, "z"))
    index = display.index(LEFT_FRONTAL)[0]
    plain = np.asarray(painter.scan_panel(AXIAL, index, 2.0)).astype(int)
    overlaid = np.asarray(painter.overlay_panel(AXIAL, index, 2.0)).astype(int)
    changed = np.abs(plain - overlaid).max(axis=-1) > 0
    assert 0 < changed.mean() < 0.05
    rows, columns = np.nonzero(changed)
    assert np.ptp(rows) < 60 and np.ptp(columns) < 60  # the sphere of 40 pixels and its outline, nothing else


def test_the_overlay_ramps_in_at_the_threshold():
    scale = ScoreScale.of(np.array([4.0, 12.0]), 3.0, "z")
    opacity = scale.opacity(np.array([-5.0, 0.0, 3.0, 3.1, 5.0, 50.0]))
    assert (opacity[:3] == 0).all() and 0 < opacity[3] < 0.1 < opacity[4] and opacity[5] == MAX_OPACITY
    assert ScoreScale.of(np.array([]), 3.0, "z").top > 3.0


def test_the_crosshair_stays_off_the_finding(thick_head):
    result = detection(thick_head, [(LEFT_FRONTAL, 10.0)])
    display = Display(result)
    painter = Painter(display, ScoreScale.of(np.array([9.0]), 3.0, "z"))
    spot = Spot(display.index(LEFT_FRONTAL), 1)
    for plane in (AXIAL, CORONAL, SAGITTAL):
        blank = Image.new("RGB", painter.scan_panel(plane, spot.index[plane.cut], 2.0).size)
        lines = np.asarray(painter.cross(blank, plane, spot, 2.0)).max(axis=-1) > 0
        inside = plane.slice(display.components, spot.index[plane.cut]) == 1
        finding = np.asarray(Image.fromarray(inside).resize(blank.size)) > 0
        assert lines.any() and not (lines & finding).any(), plane.name
        row, column = (np.flatnonzero(finding.any(axis=axis)).mean() for axis in (1, 0))
        assert abs(np.flatnonzero(lines[:, 0]).mean() - row) < 4 and abs(np.flatnonzero(lines[0]).mean() - column) < 4


def test_dark_findings_are_cold(thick_head):
    result = detection(thick_head, [((31.5, 46.5, 21.0), 10.0)], polarity="dark")
    painter = Painter(Display(result), ScoreScale.of(np.array([9.0]), 3.0, "z"))
    assert painter.polarities() == ["dark"]
    picture = overlays(result)["axial"].astype(int)
    finding = np.asarray(Image.fromarray(
        AXIAL.slice(painter.display.components, painter.display.index((31.5, 46.5, 21.0))[0]) == 1
    ).resize(picture.shape[1::-1])) > 0
    assert (picture[finding][:, 2] > picture[finding][:, 0] + 20).mean() > 0.7


def test_what_is_no_finding_has_colour_but_no_outline(thick_head):
    result = detection(thick_head, [(LEFT_FRONTAL, 10.0)])
    unkept = dataclasses.replace(result, components=result.components * 0, findings=[])
    height, drawn = Display(result).index(LEFT_FRONTAL)[0], []
    for found in (result, unkept):
        painter = Painter(Display(found), ScoreScale.of(np.array([9.0]), 3.0, "z"))
        drawn.append(np.asarray(painter.overlay_panel(AXIAL, height, 2.0)).astype(int))
    outline = np.abs(drawn[0] - drawn[1]).max(axis=-1) > 30
    assert outline.any() and (drawn[0][outline].min(axis=-1) > drawn[1][outline].min(axis=-1)).all()  # white on both
    assert (drawn[1] != np.asarray(painter.scan_panel(AXIAL, height, 2.0))).any()


def test_letters_and_scale_bar_are_drawn(thick_head):
    result = detection(thick_head, [(LEFT_FRONTAL, 10.0)])
    painter = Painter(Display(result), ScoreScale.of(np.array([9.0]), 3.0, "z"))
    blank = Image.new("RGB", painter.scan_panel(AXIAL, 5, 3.0).size)
    drawn = np.asarray(painter.mark(blank, AXIAL, (5, 5, 5), 3.0, size=24)).max(axis=-1)
    height, width = drawn.shape
    for edge in (drawn[height // 2 - 15:height // 2 + 15, :30], drawn[height // 2 - 15:height // 2 + 15, -30:],
                 drawn[:35, width // 2 - 15:width // 2 + 15], drawn[-35:, width // 2 - 15:width // 2 + 15]):
        assert edge.max() > 200
    bar = np.flatnonzero(drawn[height - 12] > 200)
    assert np.ptp(bar[bar > width / 2 + 20]) == pytest.approx(50 * 3.0, abs=4)


def test_a_finding_between_two_slices_of_the_montage_is_numbered_too(thick_head):
    result = detection(thick_head, [(LEFT_FRONTAL, 2.5)])
    display, written = Display(result), []
    painter = Painter(display, ScoreScale.of(np.array([9.0]), 3.0, "z"))
    for columns in (1, 6):  # one slice, in the middle of the brain or at its foot, and nearly all of them
        pictures = [np.asarray(montage(painter, findings, width_px=300 * columns, columns=columns, rows=columns))
                    for findings in ([], result.findings)]
        written.append((pictures[0] != pictures[1]).any())
    assert written == [True, True]


# --- The page --------------------------------------------------------------------------------------------------------

def test_the_page_is_well_formed_and_asks_the_network_for_nothing(page, page_directory):
    root = ElementTree.fromstring(page.split("\n", 1)[1])
    assert page.startswith("<!DOCTYPE html>")
    for element in root.iter():
        for attribute in ("src", "href", "srcset", "data", "action"):
            target = element.get(attribute)
            assert target is None or target.startswith(("data:image/", "#finding-")), target
        assert element.tag not in ("script", "link", "iframe", "object")
    assert "@import" not in page and "url(" not in page and "default-src 'none'" in page
    anchors = {element.get("href")[1:] for element in root.iter("a")}
    assert anchors == {element.get("id") for element in root.iter("figure") if element.get("id")}
    assert sorted(path.name for path in page_directory.iterdir()) == ["overlay.png", "report.html"]


def test_names_and_texts_are_escaped(page):
    assert "<script" not in page and "<i>left</i>" not in page
    text = text_of(page)
    assert '<script>alert(1)</script> & "co"' in text and "<i>left</i> white matter" in text
    assert "Out of distribution: contrast <unlike> training." in text


def test_the_page_holds_the_numbers(page, thick_head):
    text = text_of(page)
    result = detection(thick_head, [(LEFT_FRONTAL, 10.0)])
    for piece in (f"{PICTURED_FINDINGS + 1} bright findings", millilitres(result.findings[0].volume_ml),
                  "-31.5, 46.5, 21.0", "9.00", "8.50", "threshold 3", "standard deviations", "FLAIR",
                  "60 × 68 × 32 voxels of 3.00 × 3.00 × 6.00 mm", "ab" * 32, "flair-anatomy", "research use only",
                  "network 3.00 s", "prepare 1.00 s", "1 %"):
        assert piece in text, piece
    assert f"Finding {PICTURED_FINDINGS}:" in text and f"Finding {PICTURED_FINDINGS + 1}:" not in text
    assert "total 4.00" not in text


def test_pictures_are_there_and_the_first_shows_the_first_finding(page, page_directory, thick_head):
    pictures = pictures_of(page)
    assert len(pictures) == PICTURED_FINDINGS + 1 + 4  # findings, montage, four maps
    sheet = pictures[0]
    display = Display(detection(thick_head, [(LEFT_FRONTAL, 10.0)]))
    axial_share = display.size_mm(AXIAL)[0] / sum(display.size_mm(plane)[0] for plane in PLANES)
    axial = sheet[sheet.shape[0] // 2:, :int(sheet.shape[1] * axial_share)]
    x, y = coloured_centre(axial)
    assert 0.6 < x < 0.85 and y < 0.45
    alone = Image.open(page_directory / "overlay.png").convert("RGB")
    assert alone.width > 1000 and coloured_centre(np.asarray(alone))
    assert len(page) < 4_000_000


def test_nothing_found(thick_head, tmp_path):
    write_report(detection(thick_head, []), tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = text_of(html)
    assert "Nothing above threshold" in text and "Planes through the middle of the brain" in text
    assert "<td" not in html.split("Provenance")[0] and "Numbers" not in text
    assert len(pictures_of(html)) == 1 + 1 + 4
    assert Image.open(tmp_path / "overlay.png").width > 1000


def test_an_unusual_result_still_makes_a_report(thick_head, tmp_path):
    """No brain, no reference, no provenance, NaN in the maps, an integer scan."""
    result = detection(thick_head, [])
    hollow = sitk.Image(result.brain.GetSize(), sitk.sitkUInt8)
    hollow.CopyInformation(thick_head)
    result = dataclasses.replace(
        result, scan=Scan(sitk.Cast(thick_head, sitk.sitkInt16), name=""), modality="other", brain=hollow,
        std=result.std * float("nan"), reference_histogram={}, provenance={}, warnings=[], unit="score in $")
    write_report(result, tmp_path)
    text = text_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "neither FLAIR nor DWI" in text and "not found" in text and "Read with care" not in text


# --- Words -----------------------------------------------------------------------------------------------------------

def finding(volume_ml: float, polarity: str = "bright", location: str = "left white matter") -> Finding:
    return Finding(1, polarity, location, volume_ml, 9.0, 5.0, (0, 0, 0), (0, 0, 0), (0, 0, 0), (1, 1, 1))


def test_the_summary_says_it_plainly():
    assert summary([]).startswith("Nothing above threshold")
    assert summary([], 0.126).startswith("No finding: 0.13 ml are above the threshold")
    assert summary([finding(3.21)]) == "One bright finding of 3.21 ml in the left white matter."
    assert summary([finding(5.0), finding(1.5)]) == (
        "2 bright findings, 6.50 ml in all; the largest, 5.00 ml, lies in the left white matter and is ranked first.")
    assert summary([finding(1.0, "dark", "right cortex"), finding(12.34)]) == (
        "1 bright and 1 dark findings, 13.3 ml in all; the largest, 12.3 ml, lies in the left white matter (no. 2); "
        "ranked first is one of 1.00 ml in the right cortex.")


@pytest.mark.parametrize("value, text", [(0, "0"), (0.0421, "0.042"), (1.234, "1.23"), (12.34, "12.3"), (345.6, "346")])
def test_volumes_have_sensible_digits(value, text):
    assert millilitres(value) == text


def test_numbers_have_no_needless_digits():
    assert [number(value) for value in (0, 0.5, 12.34, 150000, 1e-6)] == ["0", "0.5", "12.3", "150000", "1e-06"]
    assert [percent(share) for share in (0.01, 0.0035, 0.123, 1e-6, 0)] == ["1 %", "0.35 %", "12 %", "< 0.01 %", "0 %"]


# --- Real scans and a real browser -----------------------------------------------------------------------------------

def test_a_real_thick_slice_scan_keeps_its_proportions(medvae_data):
    folder = medvae_data / "brain" / "flair" / "ms_isbi_01"
    image = sitk.ReadImage(str(folder / "flair.nii.gz"), sitk.sitkFloat32)
    result = detection(image, [])
    result.brain = sitk.Cast(sitk.ReadImage(str(folder / "brainmask.nii.gz")) > 0, sitk.sitkUInt8)
    result.brain.CopyInformation(image)
    display = Display(result)
    painter = Painter(display, ScoreScale.of(np.empty(0), 3.0, "z"))
    picture = three_planes(painter, Spot(display.centre()), width_px=900, with_scan=False)
    width, height = display.size_mm(CORONAL)
    panel = painter.scan_panel(CORONAL, display.centre()[1], 2.0)
    assert panel.size == (round(2 * width), round(2 * height)) and 130 < width < 200 and 100 < height < 180
    assert picture.width == pytest.approx(900, abs=3)
    assert painter.display.axes.tilt_deg > 5


@needs_browser
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_the_page_whole(page, tmp_path, width):
    assert_shown_whole(page, tmp_path, width, pictures=16)


@needs_browser
def test_a_browser_prints_the_page_on_few_sheets(page_directory, tmp_path):
    pdf = tmp_path / "report.pdf"
    browse(page_directory / "report.html", tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    sheets = len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf.read_bytes()))
    assert 4 <= sheets <= 9

"""The report of a skull prediction: complete, self-contained, and whole in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
from MedVAELib.reporting.head_views import VIEWS, HeadPainter  # noqa: E402
from MedVAELib.reporting.skull_page import write_skull_report  # noqa: E402
from MedVAELib.reporting.skull_pictures import PROBABILITY, UNCERTAINTY, plane_picture, sections  # noqa: E402
from MedVAELib.skull.predict import predict_skull  # noqa: E402
from MedVAELib.skull.predictor import SkullPredictor  # noqa: E402
from Testing.browser import assert_shown_whole, needs_browser  # noqa: E402

from .bundles import bright_outline, outline_bundle, shape_bundle  # noqa: E402
from .heads import ellipsoid_sdf  # noqa: E402
from .test_predict import images  # noqa: E402


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    predictor = SkullPredictor.load(shape_bundle(folder / "shape"), "cpu", outline_bundle(folder / "outline"))
    predictor.outline.find = bright_outline
    planes = {name: image for name, image in images().items() if name != "coronal"}
    made = predict_skull(planes, predictor=predictor, samples=4, ga_weeks=30.0)
    made.warnings.append("A <warning> & more.")
    return made


@pytest.fixture(scope="module")
def page_file(result, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_skull_report(result, folder)
    return folder / "report.html"


def test_the_page_says_all_there_is(page_file, result):
    page = page_file.read_text(encoding="utf-8")
    assert [file.name for file in page_file.parent.iterdir()] == ["report.html"]
    assert "A &lt;warning&gt; &amp; more." in page and "research use only" in page
    assert "Not given: coronal" in page and "not registered" in page
    for measure in result.measures:
        assert f"{measure.value:.1f} {measure.unit}" in page
    assert "at 30 weeks" in page and "INTERGROWTH" in page
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page


def test_without_an_age_or_planes(result, tmp_path):
    from dataclasses import replace

    bare = replace(result, planes=[], ga_weeks=None, warnings=[],
                   measures=[replace(m, percentile=None) for m in result.measures])
    write_skull_report(bare, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "--ga" in page and "Read with care" not in page and "<h2>Planes</h2>" not in page


def test_the_outline_is_drawn_where_it_was_found(result):
    found = result.planes[0]
    picture = np.asarray(plane_picture(found)).astype(int)
    scale = picture.shape[1] / found.image.grey_yx.shape[1]
    cyan = (picture[..., 2] > 150) & (picture[..., 0] < 150)
    rows, columns = np.nonzero(cyan)
    centre = np.array([rows.mean(), columns.mean()]) / scale
    assert centre == pytest.approx(found.centre_yx_px, abs=6)


def test_sections_and_views_show_the_head_the_right_way_up():
    """A head that is longer to the front and has its uncertain side on the right."""
    sdf = ellipsoid_sdf((24.0, 32.0, 26.0), 96).numpy() * 1.2
    right = np.linspace(0, 2, 96, dtype=np.float32)[None, None, :] * np.ones_like(sdf)
    painter = HeadPainter(sdf, right, 1.2, UNCERTAINTY, (0.2, 1.6), ["sagittal"])
    above = np.asarray(painter.paint(VIEWS[2], 200)).astype(int)
    lit = above.sum(2) > 90
    rows, columns = np.nonzero(lit[20:])
    assert np.ptp(rows) > 1.1 * np.ptp(columns)  # front upwards
    left, right_half = above[100:, 60:90].mean((0, 1)), above[100:, 110:140].mean((0, 1))
    assert left[1] > 1.5 * right_half[1]  # bone-coloured on the sure side, which is the head's left
    dark = above[90:110, 95:106].sum(2).min(1)
    assert dark.max() < 0.6 * above[90:110, 70].sum(1).mean()  # the sagittal plane's line

    class Plain:
        distance_mm, spacing_mm = sdf, 1.2

    axial = np.asarray(sections(Plain, right, PROBABILITY, 2.0))[:, :440].astype(int)
    assert axial[220, 60].sum() > axial[220, 380].sum()  # the head's right on the left


def test_a_head_that_fills_its_grid_is_drawn_without_end():
    painter = HeadPainter(np.ones((8, 8, 8)), np.ones((8, 8, 8)), 1.0, UNCERTAINTY, (0.2, 1.6), [])
    assert painter.paint(VIEWS[0], 40).size == (40, 40)


@needs_browser
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_the_page_whole(page_file, tmp_path, width):
    assert_shown_whole(page_file.read_text(encoding="utf-8"), tmp_path, width, pictures=8)

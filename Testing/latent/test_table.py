"""Tables of latents: what is written comes back, and what is unclear is named."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from MedVAELib.errors import InputError, UsageError
from MedVAELib.latent.importance import carried, order_of_latents, separation
from MedVAELib.latent.statistics import latent_statistics
from MedVAELib.latent.table import LatentTable, is_latent_table
from Testing.latent.cohorts import cohort


def test_csv_comes_back_to_the_last_bit(tmp_path):
    table = cohort()
    table.tags["repetition_time_ms"][3] = np.nan
    back = LatentTable.read(table.write(tmp_path / "latents.csv"))
    assert np.array_equal(back.mean, table.mean) and np.array_equal(back.log_variance, table.log_variance)
    assert list(back.cases) == list(table.cases) and list(back.split) == list(table.split)
    assert np.array_equal(back.tags["repetition_time_ms"], table.tags["repetition_time_ms"], equal_nan=True)
    assert list(back.tags["scanner"]) == list(table.tags["scanner"])


@pytest.mark.parametrize("first", ["", "sep=;\n", "\ufeff"])
def test_a_table_saved_by_a_spreadsheet_comes_back(tmp_path, first):
    """With semicolons, decimal commas, a line of Excel's own or a byte order mark, and an empty line at the end."""
    table, path = cohort(), tmp_path / "latents.csv"
    text = table.write(path).read_text(encoding="utf-8").replace(",", ";").replace(".", ",")
    path.write_text(first + text + ";;;\n", encoding="utf-8")
    back = LatentTable.read(path)
    assert np.array_equal(back.mean, table.mean) and np.array_equal(back.log_variance, table.log_variance)
    assert list(back.labels) == list(table.labels) and set(back.tags) == set(table.tags) and is_latent_table(path)
    assert np.array_equal(back.tags["repetition_time_ms"], table.tags["repetition_time_ms"])


def test_no_variance_no_label_no_tags(tmp_path):
    table = LatentTable(["a", "b"], ["p", "q"], np.array([[1e-7], [3.25]], np.float32))
    back = LatentTable.read(table.write(tmp_path / "latents.csv"))
    assert back.log_variance is None and list(back.labels) == ["", ""] and not back.tags
    assert np.array_equal(back.mean, table.mean)


def test_files_are_no_tags_and_are_found_from_the_tables_folder(tmp_path):
    files = [str(tmp_path / f"{case}.nii.gz") for case in cohort().cases]
    table = replace(cohort(), files=files)
    back = LatentTable.read(table.write(tmp_path / "latents.csv"))
    assert list(back.files) == files and set(back.tags) == set(table.tags)
    assert list(back.select([3]).files) == files[3:4]
    assert list(LatentTable.read(cohort().write(tmp_path / "older.csv")).files) == [""] * 120
    (tmp_path / "by_hand.csv").write_text("case,scan,mu_0\na,sub/a.nii,1\nb,,2\n")
    by_hand = LatentTable.read(tmp_path / "by_hand.csv")
    assert list(by_hand.files) == [str(tmp_path / "sub" / "a.nii"), ""] and not by_hand.tags


def test_parquet_or_one_clear_sentence(tmp_path):
    path = tmp_path / "latents.parquet"
    if importlib.util.find_spec("pyarrow"):
        assert np.array_equal(LatentTable.read(cohort().write(path)).mean, cohort().mean)
    else:
        with pytest.raises(UsageError, match="pyarrow"):
            cohort().write(path)


@pytest.mark.parametrize("text, named", [
    ("", "empty"), ("case,mu_0\n", "no cases"), ("case,x\na,1\n", "no table of latents"),
    ("case,mu_0\na,x\n", "numbers"), ("case,mu_0,mu_2\na,1,2\n", "mu_0 to mu_1"),
    ("case,mu_0\na,nan\n", "finite"), ("case,mu_0\na\nb,1\n", "finite"),
])
def test_what_is_no_table_is_named(tmp_path, text, named):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=named) as error:
        LatentTable.read(path)
    assert "t.csv" in str(error.value)


def test_names_of_latents_are_no_tags(tmp_path):
    table = replace(cohort(), tags={"mu_3": np.zeros(120)})
    with pytest.raises(UsageError, match="mu_3"):
        table.write(tmp_path / "t.csv")


def test_columns_and_rows():
    table = cohort()
    assert len(table.select(np.asarray(table.labels, object) == "mild")) == 40
    with pytest.raises(UsageError, match="scanner"):
        table.column("field_strength")


def test_order_by_kl_and_by_separation():
    table = cohort(latents=5)
    table.mean[:, 3] *= 10
    kl = 0.5 * (table.mean**2 + np.exp(table.log_variance) - 1 - table.log_variance)
    statistics = latent_statistics(table.mean, kl, table.labels)
    assert order_of_latents(statistics)[0] == 3
    assert order_of_latents(statistics, "separation")[0] == 1 and separation(statistics)[1] > 0.8
    expected = 0.5 * (np.mean(table.mean[:, 0] ** 2) + np.exp(-2) - 1 + 2)
    assert carried(statistics)[0] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UsageError, match="kl or separation"):
        order_of_latents(statistics, "size")
    with pytest.raises(UsageError, match="two labels"):
        order_of_latents(latent_statistics(table.mean, kl, ["one"] * 120), "separation")


def test_without_variances_what_varies_comes_first():
    table = replace(cohort(latents=4), log_variance=None)
    table.mean[:, 2] = 0.05
    statistics = latent_statistics(table.mean, None, table.labels)
    assert order_of_latents(statistics)[-1] == 2 and statistics.active.tolist() == [True, True, False, True]


def test_parts_of_a_split_have_their_names():
    with pytest.raises(InputError, match="'Train'"):
        replace(cohort(), split=["Train"] * 120)


def test_a_tag_with_leading_zeros_stays_text(tmp_path):
    table = replace(cohort(), tags={"site": [f"{i:03d}" for i in range(120)], "te": [i / 10 for i in range(120)]})
    back = LatentTable.read(table.write(tmp_path / "latents.csv"))
    assert list(back.tags["site"][:2]) == ["000", "001"] and back.tags["te"].dtype == np.float64

"""LDA, probes, embeddings and the confound check on cohorts in which the answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from MedVAELib.errors import Cancelled, InputError, UsageError
from MedVAELib.evaluation.latent_tables import classification_markdown
from MedVAELib.latent.classify import classify
from MedVAELib.latent.confound import confound_check, tag_features
from MedVAELib.latent.embed import embed
from MedVAELib.latent.planes import planes_of
from MedVAELib.latent.probe import Probe, fit_linear, linear_probe
from MedVAELib.progress import CancelToken
from Testing.latent.cohorts import CLASSES, cohort


def test_lda_tells_separate_classes_and_not_mixed_ones():
    told = classify(cohort(apart=6))
    assert told.classes == CLASSES and told.accuracy.value > 0.95
    assert told.confusion.sum() == len(told.cases) == 30 and told.train_patients == 45
    assert told.axes.shape == (120, 2) and told.axes_test.sum() == 30
    mixed = classify(cohort(apart=0))
    assert mixed.accuracy.value < 0.6 and mixed.majority == pytest.approx(1 / 3, abs=0.1)


def test_a_table_without_labels_says_what_is_missing():
    table = replace(cohort(), labels=[""] * 120)
    for work in (classify, confound_check):
        with pytest.raises(InputError, match="No image has a value of 'label': .*--label"):
            work(table)


def test_precision_and_recall_are_those_of_the_confusion():
    told = classify(cohort(apart=1.5))
    row, column = told.confusion[0], told.confusion[:, 0]
    assert told.recall[0] == row[0] / row.sum() and told.precision[0] == column[0] / column.sum()
    assert told.accuracy.low < told.accuracy.value < told.accuracy.high


def test_without_a_split_patients_stay_together():
    told = classify(cohort(split=False))
    assert {p: np.sum(told.patients == p) for p in told.patients} == dict.fromkeys(told.patients, 2)
    assert 30 <= len(told.cases) <= 50


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(4))
def test_a_class_of_one_or_two_patients_trains_and_is_not_judged(seed):
    table = cohort(split=False)
    few = ["rare" if patient in ("p07", "p11") else label for patient, label in
           zip(table.patients, table.labels, strict=True)]
    told = classify(replace(table, labels=few), seed=seed)
    assert told.unjudged == ("rare",) and "rare" in told.classes and not {"p07", "p11"} & set(told.patients)
    assert "Too few patients to judge: rare." in classification_markdown(told, None)


def test_where_every_class_has_one_or_two_patients_that_is_the_reason_given():
    table = cohort(split=False)
    chosen = [patient for name in CLASSES[:2] for patient in sorted(
        {p for p, label in zip(table.patients, table.labels, strict=True) if label == name})[:2]]
    few = table.select([row for row, patient in enumerate(table.patients) if patient in chosen])
    with pytest.raises(InputError, match="Every value has fewer than 3 patients"):
        classify(few)


def test_a_patient_on_both_sides_is_refused():
    table = cohort()
    with pytest.raises(InputError, match="p03"):
        classify(replace(table, split=["train", "test"] * 60, patients=["p03"] * 120))


def test_many_latents_of_few_images_do_not_break_it():
    told = classify(cohort(patients=30, latents=400, apart=12))
    assert told.accuracy.value > 0.6 and told.axes.shape[1] == 2


def test_the_first_axes_set_the_classes_apart_however_many_latents_tell_nothing():
    """Three classes in a row along one of many latents: one axis has nearly all of what lies between them."""
    random = np.random.default_rng(0)
    table = cohort(patients=150, latents=256, apart=0)
    place = 4.0 * np.array([CLASSES.index(label) for label in table.labels])
    mean = random.normal(size=table.mean.shape)
    mean[:, 100] += place
    told = classify(replace(table, mean=mean))
    test = told.axes_test
    assert told.shares[0] > 0.8 and told.shares.sum() == pytest.approx(1)
    assert abs(np.corrcoef(told.axes[test, 0], place[test])[0, 1]) > 0.8


def test_another_column_can_be_the_target():
    assert classify(cohort(), "scanner").classes == ("A", "B")
    with pytest.raises(InputError, match="2|two"):
        classify(replace(cohort(), labels=["one"] * 120))


def test_confounded_cohort_raises_the_alarm_and_the_other_does_not():
    alarm = confound_check(cohort(confounded=True))
    assert alarm.verdict == "alarm" and alarm.tags.value > 0.9
    assert next(iter(alarm.each_tag)) == "repetition_time_ms"
    assert alarm.sentence.startswith("CONFOUNDED") and "repetition_time_ms" in alarm.sentence
    calm = confound_check(cohort())
    assert calm.verdict != "alarm" and calm.tags.low < 1 / 3 + 0.1
    assert calm.latents.value > 0.9 and not calm.left_out


def of_few_patients(patients: int, **more):
    """Two classes of so many patients together, many images each."""
    table = with_one_tag(cohort(), **more)
    return replace(table, labels=["" if label == "severe" else label for label in table.labels], patients=[
        f"{label}{row // 6 % (patients // 2)}" for row, label in enumerate(table.labels)])


@pytest.mark.parametrize(("patients", "verdict"), [(4, "too few patients"), (6, "clear")])
def test_few_patients_tell_of_no_confounding_only_where_it_is(patients, verdict):
    check = confound_check(of_few_patients(patients))
    assert check.verdict == verdict
    assert check.sentence.startswith("Too few") == ("[too few" in check.sentence) == (patients < 5)
    confounded = np.array([CLASSES.index(label) / 2 for label in cohort().labels])
    assert confound_check(of_few_patients(patients, age=confounded)).verdict == "alarm"


@pytest.mark.parametrize(("labels", "patients"), [
    ("ab" * 3, 6), ("aaab" * 2, 8), ("ab" * 4, 8), ("abb" * 3, 9), ("aa" + "b" * 28, 30), ("aaa" + "b" * 27, 30),
    ("abc" * 3, 9),
])
@pytest.mark.parametrize("kind", [float, str])
def test_a_tag_that_is_the_label_is_never_cleared_however_few_images_a_class_has(labels, patients, kind):
    """One image each, so that no tree can split where a leaf takes a good part of a class."""
    table = cohort(patients).select(range(0, 2 * patients, 2))
    tag = [kind(ord(label)) for label in labels]
    check = confound_check(replace(table, labels=list(labels), tags={"echo_time_ms": np.array(tag)}))
    assert check.verdict == "alarm" and check.tags.value == 1


def test_one_test_patient_has_no_interval():
    told = classify(cohort(patients=4))
    assert len(set(told.patients)) == 1 and "Accuracy 1.00 [too few patients]" in classification_markdown(told, None)
    assert np.isnan(told.accuracy.record()["low"]) and classify(cohort(patients=20)).accuracy.record()["low"] > 0


def test_a_relation_that_no_line_shows_is_found():
    table = cohort(apart=0)
    kind = np.array([CLASSES.index(label) for label in table.labels])
    tags = {"bandwidth": np.where(kind == 1, 100.0, np.where(np.arange(120) % 4 < 2, 50.0, 150.0))}
    check = confound_check(replace(table, tags=tags))
    assert check.verdict == "alarm" and check.each_tag["bandwidth"].low > 0.4


def test_a_patients_images_never_help_to_predict_it():
    """A tag that names the patient predicts nothing in others."""
    table = cohort(apart=0)
    number = np.array([float(p[1:]) * 1000 % 7919 for p in table.patients])
    assert confound_check(replace(table, tags={"number": number})).verdict != "alarm"


def with_one_tag(table, **more):
    """Every tag is checked by itself, which takes a second."""
    return replace(table, tags={"echo_time_ms": table.tags["echo_time_ms"], **more})


def test_tags_that_cannot_be_checked_are_named():
    check = confound_check(with_one_tag(cohort(), series=np.array([f"s{i}" for i in range(120)], object)))
    assert check.left_out == ("series",) and check.sentence.endswith("nearly every image: series.")


@pytest.mark.parametrize("own", ["lesion_fraction", "generated_by"])
def test_the_librarys_own_columns_are_no_acquisition_tags(own):
    table = cohort()
    share = np.array([CLASSES.index(label) / 2 for label in table.labels])
    table = with_one_tag(table, **{own: share})
    assert own not in confound_check(table).each_tag
    assert confound_check(table, tags=[own]).verdict == "alarm"


def test_columns_that_no_scanner_states_are_not_called_its_tags():
    table = cohort(confounded=True)
    times = table.tags["repetition_time_ms"]
    for name, what in ("echo_time_ms", "acquisition tags"), ("pixel_mm", "acquisition tags"), ("age", "columns"), (
            "position_mm", "columns"):
        check = confound_check(replace(table, tags={name: times}))
        assert check.sentence.startswith(f"CONFOUNDED: {what}") and ("scanner" in check.sentence) == ("tags" in what)


def test_no_tags_is_one_sentence():
    with pytest.raises(InputError, match="no acquisition tag"):
        confound_check(replace(cohort(), tags={"te": np.full(120, 5.0), "uid": [f"u{i}" for i in range(120)]}))


def test_features_of_tags():
    assert tag_features(np.array([1.0, np.nan, 3.0])).tolist() == [[1, 0], [2, 1], [3, 0]]
    assert tag_features(np.array(["a", "b", "a", "b"], object)).shape == (4, 2)


def test_auc_of_a_probe():
    table = cohort(apart=3)
    lesion = ["lesion" if label == "severe" else "healthy" for label in table.labels]
    probe = linear_probe(table.mean, lesion, table.patients)
    assert probe.auc.value > 0.93 and probe.auc.low < probe.auc.value
    from sklearn.metrics import roc_auc_score

    positive = probe.probability[:, 1]
    assert probe.auc.value == pytest.approx(roc_auc_score(probe.true == "lesion", positive), abs=1e-9)
    shuffled = linear_probe(np.random.default_rng(0).normal(size=(120, 4)), lesion, table.patients)
    assert 0.3 < shuffled.auc.value < 0.7
    with pytest.raises(InputError, match="single patient"):
        linear_probe(table.mean, ["a", "a", *["b"] * 118], table.patients)


def test_a_latent_that_hardly_varies_counts_for_less():
    """Shrunk on the features' own scales; standardised first, the fit would be the same on any scale."""
    random = np.random.default_rng(0)
    kind, seen = np.arange(300) % 2, np.arange(300) < 60
    features = random.normal(size=(300, 55)) + np.pad(1.0 * kind[:, None], [(0, 0), (0, 54)])

    def right(quieter: float) -> float:
        scaled = features * np.where(np.arange(55) == 0, 1.0, quieter)
        return float((fit_linear(scaled[seen], kind[seen]).predict(scaled[~seen]) == kind[~seen]).mean())

    assert right(0.05) > 0.65 > right(1.0) + 0.02


def test_classes_count_alike_however_many_images_they_have():
    random = np.random.default_rng(0)
    for classes in (2, 3):
        kind = np.where(np.arange(600) % 20, classes - 1, np.arange(600) // 20 % (classes - 1))
        features = random.normal(size=(600, 2)) + 1.5 * np.eye(3)[kind][:, :2]
        names = np.array(["a", "b", "c"], object)[kind]
        recall = np.array([(fit_linear(features, names).predict(features)[names == n] == n).mean() for n in set(names)])
        assert recall.min() > 0.5
        probe = linear_probe(features, names, [str(i) for i in range(600)])
        assert probe.balanced_accuracy.value == pytest.approx(recall.mean(), abs=0.1)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_figures_are_those_of_scikit_learn(count):
    random = np.random.default_rng(count)
    true = random.choice(count, 200, p=np.arange(1, count + 1) / np.arange(1, count + 1).sum())
    probability = random.dirichlet(np.ones(count), 200) + 0.3 * np.eye(count)[true]
    probability /= probability.sum(1, keepdims=True)
    names = np.array(list("abcd"), object)
    probe = Probe(tuple("abcd"[:count]), names[true], probability, np.arange(200))
    assert probe.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(true, probability.argmax(1)))
    auc = roc_auc_score(true, probability if count > 2 else probability[:, 1], multi_class="ovr")
    assert probe.auc.value == pytest.approx(auc)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_embeddings_keep_classes_apart(method):
    table = cohort(apart=12)
    found = embed(table.mean, method)
    groups = [found.points[np.array(table.labels) == name] for name in CLASSES]
    centres = np.array([group.mean(0) for group in groups])
    within = max(np.linalg.norm(group - centre, axis=1).mean() for group, centre in zip(groups, centres, strict=True))
    assert np.linalg.norm(centres[0] - centres[2]) > 2 * within
    assert np.array_equal(found.points, embed(table.mean, method).points)


def test_embedding_of_few_or_unknown():
    with pytest.raises(InputError, match="too few"):
        embed(np.zeros((3, 4)))
    with pytest.raises(UsageError, match="pca, tsne, umap"):
        embed(np.zeros((9, 4)), "isomap")
    assert embed(np.random.default_rng(0).normal(size=(4, 100)), "tsne").points.shape == (4, 2)


def test_without_test_images_the_validation_ones_are_the_test():
    table = cohort()
    held_back = replace(table, split=["validation" if part == "test" else part for part in table.split])
    assert classify(held_back).cases == classify(table).cases


@pytest.mark.parametrize("rows", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("alike", [False, True])
def test_tables_too_small_are_one_sentence(rows, alike):
    """Whatever the split finds in them."""
    table = cohort(split=False).select(np.arange(2 * rows)[:: 1 if alike else 2])
    for work in (classify, confound_check):
        try:
            work(table)
        except InputError as error:
            assert "\n" not in str(error) and str(error).endswith(".")


def test_latents_that_are_all_alike_are_not_embedded():
    for method in ("pca", "tsne"):
        with pytest.raises(InputError, match="same latents"):
            embed(np.ones((40, 5)), method)
    assert planes_of(replace(cohort(), mean=np.ones((120, 6), np.float32))) == []


def test_the_lda_plane_says_where_labels_that_mean_nothing_lie_apart():
    """Fitted on few images of many latents, it sets any labels apart; on the training images alone, not the others."""
    table = cohort(patients=40, latents=64, apart=0)
    seen = planes_of(replace(table, split=[""] * 80))[0]
    assert seen.name == "LDA" and "fitted on these images" in seen.axes[0]
    held_back = planes_of(table)[0]
    assert "fitted on the training images" in held_back.axes[0] and not np.allclose(seen.points, held_back.points)


def test_the_confound_check_can_be_cancelled():
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        confound_check(cohort(), cancel=cancel)


def test_labels_of_digits_are_names():
    digits = [str(CLASSES.index(label)) for label in cohort().labels]
    check = confound_check(replace(cohort(confounded=True), labels=digits))
    assert check.verdict == "alarm" and classify(replace(cohort(), labels=digits)).classes == ("0", "1", "2")


def test_images_that_do_not_differ_within_their_label_are_refused_in_a_sentence():
    with pytest.raises(InputError, match="same latents"):
        fit_linear(np.repeat([[0.0, 1.0], [2.0, 1.0]], 4, 0), np.repeat(["a", "b"], 4))

"""Which patients train, validate and test, a patient never in two of them, and what there is of each in words."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from ..errors import InputError

_MOST_LABELS = 12  # in words
_MANY = 4  # groups of images, from which on they may be patients
_FEW = 3  # images of a group, up to which it may be a patient: classes have more
_OF_ONE = {"slice", "frame", "visit", "session"}  # numbered anew for every patient, where classes count images


def assign_parts(
    patients: Sequence[str], labels: Sequence[str], given: Sequence[str], validation: float, test: float, seed: int,
    only_train: Collection[str] = (),
) -> list[str]:
    """train, validation or test for every image, from its patient, label ("" for none) and the split given for it ("").

    Patients without a given split are drawn, with shares alike in every label. If none validates then, as where only
    train and test are given, the share is drawn from those that train. The draw depends on the seed and the patients'
    names alone. only_train: patients that train unless their split says otherwise, as those that a model made up.
    Raises InputError for a patient given two parts, or where nobody would be left to train or validate.
    """
    part = _given_parts(patients, given)
    label = _usual_label(patients, labels)
    part.update({patient: "train" for patient in only_train if not part.get(patient)})
    free = [patient for patient in label if not part.get(patient)]
    for name, share in (("validation", validation), ("test", test)):
        for patient in _drawn([p for p in free if not part.get(p)], label, share, len(free), f"{seed}/{name}"):
            part[patient] = name
    part.update({patient: "train" for patient in free if not part.get(patient)})
    if "validation" not in part.values() and validation > 0:
        train = [patient for patient in label if part[patient] == "train" and patient not in only_train]
        for patient in _drawn(train, label, validation, len(train), f"{seed}/validation"):
            part[patient] = "validation"
    there = Counter(part.values())
    if validation > 0 and set(label) <= set(only_train):
        raise InputError("A model made all of these images: add real ones, by which the training can be judged.")
    if not there["train"] and not free:
        raise InputError(f"None of the {len(label)} patients is there to train: their split gives all of them to "
                         f"{' and '.join(sorted(there))}.")
    if not there["train"] or (validation > 0 and not there["validation"]):
        raise InputError(f"{len(label)} patients are too few to split into training and validation: add images, change "
                         "the shares or the given split or, where DICOM headers give several people one PatientID, say "
                         "by data.patient who is who.")
    return [part[patient] for patient in patients]


def count_in_words(patients: Sequence[str], labels: Sequence[str], parts: Sequence[str]) -> str:
    """How many images, patients and images by label every part has, e.g. "train: 12 images of 6 patients (ill 8)"."""
    told = []
    for part in dict.fromkeys(parts):
        rows = [i for i, name in enumerate(parts) if name == part]
        by_label = Counter(labels[i] for i in rows if labels[i])
        listed = [f"{label} {count}" for label, count in sorted(by_label.items())]
        listed = [*listed[:_MOST_LABELS], "…"] if len(listed) > _MOST_LABELS else listed
        there = f"{_counted(len(rows), 'image')} of {_counted(len({patients[i] for i in rows}), 'patient')}"
        told.append(f"{part}: {there}" + (f" ({', '.join(listed)})" if listed else ""))
    return ", ".join(told)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def likely_patient(files: Sequence[str], labels: Sequence[str]) -> str:
    """What several files, but not all, have in common as the images of one patient do; else "".

    A folder numbered with two digits or more; in one folder the start of their names up to the first number ("p01" of
    p01_t1) or, where there are many of few images each, up to the first separator ("anna" of anna_pre); a label, which
    is the name of a folder, where there are many of few images each or their images have the same names (visit1).
    """
    paths = [Path(file) for file in files]
    by_label = Counter(label for label in labels if label)
    if _many_of_few(by_label) or _same_names(paths, labels):
        return by_label.most_common(1)[0][0]
    words = [(path.parent, re.match(r"[^\W_]+(?=[-_. ].*\.)", path.name)) for path in paths]
    by_word = Counter(folder / word[0] for folder, word in words if word)
    if _many_of_few(by_word) and sum(count for count in by_word.values() if count > 1) >= len(paths) / 2:
        return str(by_word.most_common(1)[0][0])
    by_folder = Counter(path.parent for path in paths)
    by_name = Counter(path.parent / start[0] for path in paths if (start := re.match(r"\D*\d+", path.name)))
    for groups in (Counter({path: n for path, n in by_folder.items() if re.search(r"\d\d", path.name)}), by_name):
        name, count = next(iter(groups.most_common(1)), (Path(), 0))
        if len({path.name for path in groups}) > 1 and count > 1:
            return str(name)
    return ""


def _many_of_few(groups: Counter) -> bool:
    """Whether there are many groups with few images each, as of patients rather than of labels."""
    return len(groups) >= _MANY and groups.total() <= _FEW * len(groups) and max(groups.values()) > 1


def _same_names(paths: Sequence[Path], labels: Sequence[str]) -> bool:
    """Whether a name that is more than a number is found in most of many folders, and no mere count of their images,
    as in image_1, image_2."""
    pairs = {(label, path.name) for label, path in zip(labels, paths, strict=True)
             if label and re.search(r"[^\W\d_]", path.name.split(".")[0])}
    words = {re.sub(r"[\W\d_]", "", name.split(".")[0]).lower() for _, name in pairs}
    if len(words) == 1 and not words & _OF_ONE and any(re.search(r"\d", name.split(".")[0]) for _, name in pairs):
        return False
    folders = len(set(labels) - {""})
    return folders >= _MANY and max(Counter(name for _, name in pairs).values(), default=0) > folders / 2


def _given_parts(patients: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    part: dict[str, str] = {}
    for patient, name in zip(patients, given, strict=True):
        if name and part.setdefault(patient, name) != name:
            raise InputError(f"The patient {patient} is given to both {part[patient]} and {name}: a patient must be in "
                             "one part only.")
    return part


def _usual_label(patients: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """The label that most of a patient's images have, by patient."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for patient, label in zip(patients, labels, strict=True):
        counts[patient][label] += 1
    return {patient: min(count, key=lambda label: (-count[label], label)) for patient, count in counts.items()}


def _drawn(patients: Sequence[str], label: dict[str, str], share: float, total: int, seed: str) -> list[str]:
    """A share of `total` (at least one if the share is not 0) of the patients, from every label in proportion."""
    wanted = max(1, round(share * total)) if share > 0 and len(patients) > 1 else 0
    groups: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(patients, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()):
        groups[label[patient]].append(patient)
    chosen: list[str] = []
    seen = 0
    for name in sorted(groups):
        seen += len(groups[name])
        count = round(wanted * seen / len(patients)) - len(chosen)
        chosen += groups[name][:count]
    return chosen

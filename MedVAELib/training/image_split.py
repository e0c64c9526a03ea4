"""Which patients train, validate and test: a patient never in two of them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from ..errors import InputError


def assign_parts(
    patients: Sequence[str], labels: Sequence[str], given: Sequence[str], validation: float, test: float, seed: int
) -> list[str]:
    """train, validation or test for every image, from its patient, label ("" for none) and the split given for it ("").

    Patients without a given split are drawn, with shares alike in every label. If none validates then, as where only
    train and test are given, the share is drawn from those that train. The draw depends on the seed and the patients'
    names alone. Raises InputError for a patient given two parts, or where nobody would be left to train or validate.
    """
    part = _given_parts(patients, given)
    label = _usual_label(patients, labels)
    free = [patient for patient in label if not part.get(patient)]
    for name, share in (("validation", validation), ("test", test)):
        for patient in _drawn([p for p in free if not part.get(p)], label, share, len(free), f"{seed}/{name}"):
            part[patient] = name
    part.update({patient: "train" for patient in free if not part.get(patient)})
    if "validation" not in part.values() and validation > 0:
        train = [patient for patient in label if part[patient] == "train"]
        for patient in _drawn(train, label, validation, len(train), f"{seed}/validation"):
            part[patient] = "validation"
    there = Counter(part.values())
    if not there["train"] or (validation > 0 and not there["validation"]):
        raise InputError(f"{len(label)} patients are too few to split into training and validation: add images, "
                         "or change the shares or the given split.")  # fmt: skip
    return [part[patient] for patient in patients]


def _given_parts(patients: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    part: dict[str, str] = {}
    for patient, name in zip(patients, given, strict=True):
        if name and part.setdefault(patient, name) != name:
            raise InputError(f"The patient {patient} is given to both {part[patient]} and {name}: a patient must be in "
                             "one part only.")  # fmt: skip
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

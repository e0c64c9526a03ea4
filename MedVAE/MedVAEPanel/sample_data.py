"""The sample scan that comes with MedVAE: in the Sample Data module, and with one click in the panel."""

from __future__ import annotations

import hashlib
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from . import library

CATEGORY = "MedVAE"
NAME = "MedVAEFlair"
TITLE = "Synthetic FLAIR with lesions"
FILE = "sample/flair.nii.gz"
SHA256 = "0c6a2198822f5b02b264a4c10253c3b77a96955a423a6ed319340bc7b0e488ae"
THUMBNAIL = Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "MedVAESample.png"
_ATTRIBUTE = "MedVAE.Sample"


def register_sample_data() -> None:
    """Lists the sample in the Sample Data module; its file comes with MedVAE, so that no network is needed."""
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # since Slicer 5.12
        logic.registerCustomSampleDataCategory(CATEGORY, title=_("MedVAE"))
    try:
        uri = library.resource(FILE).as_uri()
    except (FileNotFoundError, ImportError):
        return  # the panel says so when the sample is asked for
    logic.registerCustomSampleDataSource(
        category=CATEGORY, sampleName=NAME, uris=uri, fileNames="MedVAE-synthetic-flair.nii.gz", nodeNames=TITLE,
        checksums=f"SHA256:{SHA256}", thumbnailFileName=str(THUMBNAIL), loadFileTypes="VolumeFile",
    )  # fmt: skip


def load_sample():
    """The sample as a volume node, shown in the slice views; the one that is there if it was loaded before.

    None, after telling the user why, when it cannot be loaded.
    """
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(_ATTRIBUTE) == SHA256:
            return node
    try:
        file = checked_sample()
        node = slicer.util.loadVolume(str(file), {"name": TITLE})
    except (OSError, ImportError, RuntimeError) as error:
        slicer.util.errorDisplay(str(error), windowTitle="MedVAE")
        return None
    node.SetAttribute(_ATTRIBUTE, SHA256)
    return node


def checked_sample() -> Path:
    """The sample's file. Raises OSError, with a sentence for the user, when it is missing or not the one released."""
    file = library.resource(FILE)
    if hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
        raise OSError(f"{file} is not the file that MedVAE came with: install the extension again, or use a new clone.")
    return file

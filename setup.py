"""Only what pyproject.toml cannot say: Resources/ lies beside the package in a clone and inside it in a wheel."""

from pathlib import Path

from setuptools import find_packages, setup

packages, places = find_packages(include=["MedVAELib", "MedVAELib.*"]), {"MedVAELib": "MedVAELib"}
if Path(__file__).with_name("Resources").is_dir():
    packages.append("MedVAELib.bundled")
    places["MedVAELib.bundled"] = "Resources"

setup(
    packages=packages,
    package_dir=places,
    package_data={
        "MedVAELib": ["templates/*"],
        "MedVAELib.bundled": ["bundles/**/*", "sample/**/*", "atlas/*", "configs/**/*"],
    },
)

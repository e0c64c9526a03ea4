"""Carrying out an installation plan with what Slicer offers: the PyTorch extension, slicer.packaging, slicer.util."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import dependencies
from .dependencies import Plan
from .translation import tr as _

MIN_FREE_GB = 4
"""PyTorch with its GPU libraries, while it is being unpacked."""

_REASONS = (
    (r"No space left|There is not enough space", _("The disk is full: make room and try again.")),
    (r"Permission denied|Access is denied|WinError (5|32)\b|being used by another",
     _("A file is in use or may not be replaced: restart Slicer and try again before anything else.")),
    (r"user requested \(constraint\)",
     _("A package would have to replace one that comes with this Slicer, which is not done: use a newer Slicer.")),
    (r"name resolution|getaddrinfo|NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|Network is unreachable",
     _("There is no connection to the package server: connect, or use \"Install from folder…\".")),
    (r"THESE PACKAGES DO NOT MATCH THE HASHES|has an invalid wheel|BadZipFile|is not a zip file|Wheel .* is invalid",
     _("A downloaded package is damaged: get it again.")),
)


class InstallError(Exception):
    """One sentence for the user."""


def has_pytorch_extension() -> bool:
    return importlib.util.find_spec("PyTorchUtils") is not None


def install(
    plan: Plan, log: Callable[[str], None] = print, paths: Sequence[str] | None = None, site: str | None = None
) -> None:
    """Does what the plan says, keeping the interface alive as Slicer's own installers do.

    paths, site: where packages are looked for and put (default: this Python). Raises InstallError.
    """
    site = site or sysconfig.get_path("purelib")
    _check(plan, site)
    try:
        dependencies.remove(plan.remove)
    except OSError as error:
        raise InstallError(
            _("What an interrupted installation left cannot be removed ({reason}): restart Slicer and try again before "
              "anything else.").format(reason=error.strerror)
        ) from error
    with _pip_settings(paths) as (constraints, pip_log):
        try:
            if plan.torch is not None:
                log(_("Installing PyTorch with the PyTorch extension, for this machine's GPU if it has one."))
                _install_torch(plan.torch)
            if plan.pip:
                log(_("Installing {names}.").format(names=", ".join(dependencies.names_of(plan.pip))))
                _install_with_pip(plan, constraints)
        except Exception as error:  # whatever the installers raise, the user gets one sentence
            lines = _read(pip_log)
            for line in _errors(lines)[-6:]:
                log(line)
            raise InstallError(_sentence(lines, error)) from error
    importlib.invalidate_caches()
    left = [state for state in dependencies.inspect(paths) if state.installable]
    if left:
        raise InstallError(_("{name} is still {state}: {detail}").format(
            name=left[0].package.name, state=left[0].text, detail=left[0].detail or _("try again.")))
    log(_("Everything that MedVAE needs is installed."))


def _check(plan: Plan, site: str) -> None:
    """What would fail later and less clearly."""
    if not _may_write(site):
        raise InstallError(_("{folder} may not be written: install Slicer in a folder of your own, or start it as an "
                             "administrator once.").format(folder=site))
    if plan.wheels is not None:
        if not any(plan.wheels.glob("*.whl")):
            raise InstallError(_("{folder} holds no wheels (.whl): choose the folder that they were downloaded to."
                                 ).format(folder=plan.wheels))
        lacking = dependencies.lacking_wheels(plan.wheels, plan.pip)
        if lacking:
            raise InstallError(
                _("{folder} holds no wheel of {names} that fits Python {version} on {platform}: download it there, as "
                  "the documentation says under Offline.").format(
                    folder=plan.wheels, names=", ".join(lacking), platform=sysconfig.get_platform(),
                    version=f"{sys.version_info.major}.{sys.version_info.minor}")
            )
    elif "torch" in plan.names:
        free_gb = shutil.disk_usage(site).free / 1e9
        if free_gb < MIN_FREE_GB:
            raise InstallError(_("Only {free:.1f} GB are free where Slicer is installed, and PyTorch needs about "
                                 "{least}: make room and try again.").format(free=free_gb, least=MIN_FREE_GB)
                               )


def _may_write(folder: str) -> bool:
    """By trying: Windows says yes of every folder."""
    probe = Path(folder) / f".medvae-{uuid.uuid4().hex[:8]}"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _install_torch(version: str) -> None:
    import PyTorchUtils

    torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=version)
    if torch is None:
        raise RuntimeError(_("The PyTorch extension did not install PyTorch."))


def _install_with_pip(plan: Plan, constraints: Path) -> None:
    import slicer

    packaging = _slicer_packaging()
    if plan.wheels is not None:
        arguments = ["--no-index", "--find-links", str(plan.wheels), *plan.pip]
        if packaging is not None:
            packaging.pip_install(arguments, constraints=constraints, requester="MedVAE")
        else:
            slicer.util.pip_install([*arguments, "-c", str(constraints)])
    elif packaging is not None:
        packaging.pip_ensure(list(plan.pip), constraints=constraints, prompt_install=False, requester="MedVAE")
    else:
        slicer.util.pip_install([*plan.pip, "-c", str(constraints)])


def _slicer_packaging():
    """slicer.packaging, which came with Slicer 5.12; None before."""
    try:
        return importlib.import_module("slicer.packaging")
    except ImportError:
        return None


@contextlib.contextmanager
def _pip_settings(paths: Sequence[str] | None) -> Iterator[tuple[Path, Path]]:
    """Constraints file and log for every pip that is started meanwhile, also by other extensions' installers."""
    with tempfile.TemporaryDirectory(prefix="medvae-install-", ignore_cleanup_errors=True) as folder:
        constraints, log = Path(folder) / "constraints.txt", Path(folder) / "pip.log"
        constraints.write_text(dependencies.constraints(paths), encoding="utf-8")
        # As a URL: pip splits the variable at blanks, which the name of a user's folder may have.
        settings = {"PIP_CONSTRAINT": constraints.as_uri(), "PIP_LOG": str(log), "PIP_NO_INPUT": "1",
                    "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            yield constraints, log
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _read(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _errors(lines: Sequence[str]) -> list[str]:
    """What a reader needs of pip's long log, without its time stamps."""
    telling = (re.search(r"ERROR: .*|\S+ \S+ depends on .*|The user requested .*", line) for line in lines)
    return [found.group() for found in telling if found]


def _sentence(lines: Sequence[str], error: Exception) -> str:
    text = "\n".join([*lines, str(error)])
    for pattern, sentence in _REASONS:
        if re.search(pattern, text):
            return sentence
    missing = re.search(r"No matching distribution found for (\S+)", text)
    if missing:
        return _("There is no package {name} that fits this Slicer's Python where it was looked for.").format(
            name=missing.group(1))
    last = [line for line in _errors(lines) if line.startswith("ERROR:")]
    reason = last[-1].removeprefix("ERROR:").strip() if last else str(error)
    return _("The installation failed ({reason}).").format(reason=reason[:200])

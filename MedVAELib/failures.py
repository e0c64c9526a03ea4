"""Any exception as what a user is told: a kind, the exit code of the contract, and one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import DeviceMemoryError, MedVAEError

_OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory",
    "std::bad_alloc", "status_alloc_failed", "failed to allocate", "invalid buffer size", "out of shared memory",
)
_LIBRARY_NOT_LOADED = (126, 127, 1114)  # Windows's errors for one that is missing, or cannot start
_PAGE_FILE_TOO_SMALL = 1455
_WORDS_OF_LOADERS = ("shared object file", "dll load failed", "dlopen", "library not loaded")
_REASON_CHARACTERS = 200


@dataclass(frozen=True)
class Failure:
    """kind: the class's name, for programs; exit_code: as in `errors`; message: one line, for people."""

    kind: str
    exit_code: int
    message: str

    @property
    def unexpected(self) -> bool:
        """Whether this is a mistake of ours, of which the traceback matters."""
        return self.kind == "InternalError"

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        if isinstance(error, MedVAEError):
            return cls(type(error).__name__, error.exit_code, one_line(str(error)))
        if is_out_of_memory(error):
            return cls("DeviceMemoryError", DeviceMemoryError.exit_code,
                       "There is not enough memory for this scan: close other programs, use fewer posterior samples "
                       "(--samples 1), or compute on the CPU (--device cpu).")
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("MedVAELib"):
            return cls("MissingPackage", 2, f"The Python package {error.name} is not installed: install it "
                       "(in 3D Slicer: section Setup of the MedVAE panel).")
        reason = one_line(str(error))[:_REASON_CHARACTERS]
        if _is_library_missing(error):
            return cls("MissingPackage", 2, f"A library that MedVAE needs cannot be loaded ({reason}): on Linux "
                       "install the package that has it, such as libgl1 for libGL.so.1, on Windows the Microsoft "
                       "Visual C++ Redistributable.")
        return cls("InternalError", 1, f"Something unexpected went wrong ({type(error).__name__}: {reason}).")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or in the host. Without importing torch: its error is known by its name."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if getattr(error, "winerror", None) == _PAGE_FILE_TOO_SMALL:
        return True
    text = str(error).lower()
    if isinstance(error, ImportError | OSError):  # no room for a library, unless a disk or a policy forbids code
        return "cannot allocate memory" in text or (
            "failed to map segment" in text and "not permitted" not in text and "denied" not in text)
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in _OUT_OF_MEMORY)


def _is_library_missing(error: BaseException) -> bool:
    """Whether a compiled library could not be loaded, by Python or by a package of its own accord."""
    if getattr(error, "winerror", None) in _LIBRARY_NOT_LOADED:
        return True
    return isinstance(error, OSError | ImportError) and any(words in str(error).lower() for words in _WORDS_OF_LOADERS)


def one_line(text: str) -> str:
    return " ".join(text.split())

"""Any exception as what a user is told: a kind, the exit code of the contract, and one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import DeviceMemoryError, MedVAEError

_OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory",
    "std::bad_alloc", "status_alloc_failed", "failed to allocate", "invalid buffer size",
)  # fmt: skip
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
                       "(--samples 1), or compute on the CPU (--device cpu).")  # fmt: skip
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("MedVAELib"):
            return cls("MissingPackage", 2, f"The Python package {error.name} is not installed: install it "
                       "(in 3D Slicer: section Setup of the MedVAE panel).")  # fmt: skip
        reason = one_line(str(error))[:_REASON_CHARACTERS]
        return cls("InternalError", 1, f"Something unexpected went wrong ({type(error).__name__}: {reason}).")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or in the host. Without importing torch: its error is known by its name."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in _OUT_OF_MEMORY)


def one_line(text: str) -> str:
    return " ".join(text.split())

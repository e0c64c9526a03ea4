"""Reads a scan, detects, writes every file, prints its own largest resident size in bytes: run as a process.

    python -m Testing.benchmarks.peak_memory SCAN OUTPUT DEVICE
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Largest resident size of this process so far.

    Linux counts into ru_maxrss what the parent held when it forked, so the process's own high-water mark is read there.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    from MedVAELib import Scan, detect_anomalies
    from MedVAELib.detection_outputs import write_detection

    scan, output, device = sys.argv[1:4]
    write_detection(detect_anomalies(Scan.read(Path(scan)), device=device), Path(output))
    print(peak_bytes())


if __name__ == "__main__":
    main()

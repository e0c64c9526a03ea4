"""A report in a real browser, where one is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: the page is not rendered")
_PROBE = """<script>addEventListener("load", function () {
  var pictures = Array.from(document.images);
  document.title = JSON.stringify({
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    pictures: pictures.length,
    broken: pictures.filter(function (one) { return !one.complete || one.naturalWidth === 0; }).length,
    clipped: Array.from(document.querySelectorAll("h1, h2, h3, .legend-title, .facts div")).filter(
      function (one) { return one.scrollWidth > one.clientWidth + 1; }).length});
});</script></body>"""


def browse(path: Path, profile: Path, *options: str) -> str:
    """What the browser prints of the page, which gives it nothing to complain of."""
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", "--enable-logging=stderr",
         *options, path.as_uri()], capture_output=True, text=True, timeout=240)
    assert "CONSOLE" not in done.stderr
    return done.stdout


def assert_shown_whole(page: str, folder: Path, width_px: int, pictures: int) -> None:
    """In a window of that width nothing is broken, cut off or beyond the edge, and there are so many pictures."""
    probed = folder / "probed.html"
    scripted = page.replace("style-src", "script-src 'unsafe-inline'; style-src").replace("</body>", _PROBE)
    probed.write_text(scripted, encoding="utf-8")
    shown = browse(probed, folder / "profile", f"--window-size={width_px},2000", "--dump-dom")
    seen = json.loads(re.search(r"<title>(.*?)</title>", shown, re.DOTALL).group(1))
    assert seen["pictures"] >= pictures and seen["broken"] == 0
    assert seen["overflow"] <= 0 and seen["clipped"] == 0

"""What README and pages tell a user to click and to type is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from MedVAELib.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in ("MedVAE", "MedVAELib", "Resources", "Testing")
                                      for page in (ROOT / folder).rglob("*.md"))])
COMMANDS = sorted({line.split("#")[0].strip() for page in PAGES
                   for line in re.findall(r"^\s*(?:\.venv/bin/)?(?:torchrun .*-m MedVAELib|medvae) (.*)$",
                                          page.read_text("utf-8"), re.M)})


def anchors(page: Path) -> set[str]:
    """As a heading's are made: lower case, spaces to dashes, nothing else but letters, digits and dashes."""
    text = re.sub(r"^\s*```.*?^\s*```", "", page.read_text("utf-8"), flags=re.M | re.S)  # where # begins a comment
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_have_the_options_that_are_shown(line):
    words, command = shlex.split(line), typer.main.get_command(app)
    while hasattr(command, "commands"):
        word = words.pop(0)
        assert word in command.commands, word
        command = command.commands[word]
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    shown = {word.split("=")[0] for word in words if word.startswith("--")}
    assert shown <= known, shown - known

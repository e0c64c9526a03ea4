"""What users read goes through Slicer's translation, as whole sentences."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from .detections import ROOT

FOLDER = ROOT / "MedVAE"
IN_ENGLISH = {"batch.py", "log.py", "self_test.py"}
"""What is printed by scripts, or read by developers."""
_SENTENCE = re.compile(r"^\S.* .*[.:?]$|^ ", re.S)


def _texts(tree: ast.AST) -> list[tuple[int, str, bool]]:
    """Line, text and whether it is translated, of all texts that are no docstrings and no lines of the log."""
    found = []

    def visit(node: ast.AST, translated: bool) -> None:
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in ("_log", "TypeError") or ast.unparse(node.func).endswith("log.add"):
                return
            if name in ("_", "translate"):
                translated = True
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
            found.append((node.lineno, text, False))
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append((node.lineno, node.value, translated))
        for child in ast.iter_child_nodes(node):
            visit(child, translated)

    visit(tree, False)
    return found


@pytest.mark.parametrize("name", sorted({file.name for file in (FOLDER / "MedVAEPanel").glob("*.py")} - IN_ENGLISH))
def test_sentences_are_translated_whole(name: str):
    texts = _texts(ast.parse((FOLDER / "MedVAEPanel" / name).read_text(encoding="utf-8")))
    plain = [f"{line}: {text}" for line, text, translated in texts if not translated and _SENTENCE.match(text)
             and re.search(r"[A-Za-z]{3,} [a-z]{2,}", text)]
    parts = [f"{line}: {text!r}" for line, text, translated in texts if translated and text != text.strip()]
    assert not plain, "not translated"
    assert not parts, "parts of sentences, which cannot be translated"


def test_the_parts_that_run_without_slicer_speak_english_there():
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from MedVAEPanel import dependencies, installer, library;"
            "print(dependencies.inspect()[0].text, 'slicer' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code, str(FOLDER)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["installed", "False"], done.stderr


def test_they_take_slicers_own_function_where_it_is(host, monkeypatch):
    """Itself: it tells from who calls it which file's translation is meant."""
    import slicer.i18n

    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "MedVAEPanel.translation", raising=False)
    from MedVAEPanel.translation import tr

    assert tr is slicer.i18n.tr

"""robustbench beside today's AutoAttack package, and a broken one that breaks only who asks for it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advbench import bridge
from advbench.spec import BadInput


def test_robustbench_is_imported_and_sees_the_package_that_we_evaluate_with():
    robustbench = bridge.robustbench()

    import pyautoattack

    assert callable(robustbench.utils.load_model)
    assert sys.modules["autoattack"] is pyautoattack
    assert bridge.robustbench() is robustbench


@pytest.mark.parametrize("error", [ImportError("no part of it"), AttributeError("moved"), OSError("disk")])
def test_a_broken_robustbench_is_one_line_that_says_what_to_install(monkeypatch, error):
    real = importlib.import_module

    def broken(name: str, *arguments: Any) -> Any:
        if name.startswith("robustbench"):
            raise error
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(BadInput, match=f"robustbench cannot be imported: {type(error).__name__}: .*pip install") as bad:
        bridge.robustbench()
    assert len(bad.value.lines) == 1


def test_a_broken_robustbench_leaves_everything_else_alone(tmp_path: Path):
    (tmp_path / "robustbench.py").write_text("raise RuntimeError('torn')\n", encoding="utf-8")
    code = (
        "import advbench.run, advbench.suite, advbench.resolve, sys\n"
        "assert 'robustbench' not in sys.modules\n"
        "from advbench import bridge, spec\n"
        "try:\n    bridge.robustbench()\n"
        "except spec.BadInput as bad:\n    assert 'RuntimeError: torn' in str(bad)\n"
        "else:\n    sys.exit('it was not broken')\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )

    assert done.returncode == 0, done.stderr

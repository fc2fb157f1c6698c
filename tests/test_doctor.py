"""What a machine has and lacks: every line has a state, what is broken says what to do, and only that exits with 1."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from advbench import bridge, doctor, find, machine
from advbench.energy import Meter
from advbench.spec import BadInput


def by_name(folder: Path, **where: Path) -> dict[str, doctor.Finding]:
    found = doctor.examine(where.get("results", folder / "results"), where.get("root", folder / "data"))
    names = [finding.name for finding in found]
    assert len(set(names)) == len(names)
    return {finding.name: finding for finding in found}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    """robustbench takes seconds to import; one test of the real command does."""
    monkeypatch.setattr(bridge, "robustbench", lambda: None)


def test_the_command_says_all_of_this_machine_as_lines_and_as_json(tmp_path: Path, command):
    done = command(tmp_path, "doctor", "--json")

    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"python", "torch", "pyautoattack", "robustbench", "cpu", "data digits", "results"} <= {
        f["name"] for f in found
    }
    assert {f["state"] for f in found} <= {"ok", "warn"}
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_each_line_begins_with_its_state(tmp_path: Path, capsys):
    assert doctor.show(tmp_path / "results", tmp_path, as_json=False) == 0

    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "warn") for line in lines)
    assert f"ok   torch: {torch.__version__}" in lines


def test_a_package_that_cannot_be_imported_fails_and_says_what_to_do(tmp_path: Path, monkeypatch, capsys):
    real = importlib.import_module

    def broken(name: str, *rest: Any) -> Any:
        if name == "pyarrow":
            raise ImportError("libarrow.so: no\nsuch file")
        return real(name, *rest)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)

    assert doctor.show(tmp_path, tmp_path, as_json=False) == 1
    line = (
        "FAIL pyarrow: cannot be imported: ImportError: libarrow.so: no such file; try: pip install --force-reinstall"
    )
    assert line in capsys.readouterr().out


def test_a_broken_robustbench_is_a_warning_with_its_fix(tmp_path: Path, monkeypatch):
    def broken() -> None:
        raise BadInput("robustbench cannot be imported: X; try: pip install robustbench")

    monkeypatch.setattr(bridge, "robustbench", broken)

    found = by_name(tmp_path)["robustbench"]
    assert (found.state, "pip install" in found.text) == ("warn", True)


def test_data_sets_are_there_or_say_how_to_get_them(tmp_path: Path):
    found = by_name(tmp_path)

    assert found["data digits"].state == "ok"
    assert found["data mnist"].state == "warn"
    assert "download" in found["data mnist"].text
    # These lie wherever a task says.
    assert "data npz" not in found
    assert {name.removeprefix("data ") for name in found if name.startswith("data ")} - {"root"} <= set(
        find.names(find.PACKAGE / "data")
    )


def test_a_results_folder_that_cannot_be_written_fails(tmp_path: Path):
    (tmp_path / "file").touch()

    found = by_name(tmp_path, results=tmp_path / "file" / "results")["results"]
    assert (found.state, found.fix) == ("FAIL", "choose another folder with --results")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_results_folder_without_permission_fails(tmp_path: Path):
    (tmp_path / "locked").mkdir(mode=0o500)

    assert by_name(tmp_path, results=tmp_path / "locked" / "results")["results"].state == "FAIL"


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))

    assert by_name(tmp_path)["results"].state == "warn"


def test_accelerators_are_told_with_their_memory(tmp_path: Path, monkeypatch):
    about = SimpleNamespace(name="NVIDIA X", total_memory=80 * doctor.GIB)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)
    monkeypatch.setattr(machine, "accelerators", lambda: ["cuda:0"])

    told = "NVIDIA X, 80 GiB, bf16 fast, no meter of joules: pip install 'advbench[energy]', if it has one"
    assert by_name(tmp_path)["cuda:0"].text == told
    monkeypatch.setattr(Meter, "joules", lambda _: 0.0)
    assert by_name(tmp_path)["cuda:0"].text == "NVIDIA X, 80 GiB, bf16 fast, joules counted"


def test_little_memory_for_many_cores_is_a_warning(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 10_000)

    assert by_name(tmp_path)["memory"].fix.startswith("fewer jobs at a time: --jobs ")


def test_a_check_that_raises_is_a_finding_and_the_others_go_on(tmp_path: Path, monkeypatch):
    def broken() -> Any:
        raise OSError("no /proc")

    monkeypatch.setattr(machine, "cores", broken)
    found = by_name(tmp_path)

    assert (found["cpu"].state, found["cpu"].text) == ("FAIL", "cannot be told: OSError: no /proc")
    assert found["results"].state == "ok"

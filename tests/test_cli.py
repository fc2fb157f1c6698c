"""The command line against people's mistakes: exit code 2, one clear line each, no traceback, nothing written."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

STANDARD = 'name = "standard"'
NPZ = 'name = "npz"\npath = "tiny.npz"'

MISTAKES = {
    "unknown-key": (("epochs = 1", "epochs = 1\nepoch = 2"), "training: no field 'epoch'; did you mean 'epochs'?"),
    "unknown-table": (("[evaluation]", "[evaluations]"), "no field 'evaluations'; did you mean 'evaluation'?"),
    "wrong-type": (("epochs = 1", 'epochs = "1"'), 'training.epochs: should be a valid integer, not "1"'),
    "zero-eps": (('"1/10"', "0"), "threat: eps should be above 0, not 0"),
    "negative-eps": (('"1/10"', '"-1/10"'), "threat: eps should be above 0, not -1/10"),
    "large-eps": (('"1/10"', "8"), "threat: eps should be at most 1 in Linf, where pixels lie in [0, 1], not 8; for "),
    "nan-eps": (('"1/10"', "nan"), 'threat.eps: nan is not a number or a fraction such as "8/255"'),
    "nan-lr": (("batch = 16", "lr = nan"), "training.lr: should be a finite number, not NaN"),
    "no-such-defense": (('"standard"', '"standrad"'), "no defense 'standrad'; did you mean 'standard'?"),
    "no-such-attack": (('"fgsm"', '"fsgm"'), "evaluation.attacks[0]: no attack 'fsgm'; did you mean 'fgsm'?"),
    "no-such-model": (('"linear"', '"liner"'), "model: no model 'liner'; did you mean 'linear'?"),
    "no-such-data": (('"npz"', '"npy"'), "data.name: no data set 'npy'; did you mean 'npz'?"),
    "data-without-path": ((NPZ, 'name = "npz"'), 'data: "npz" needs a path, relative to the data root'),
    "data-with-a-size": ((NPZ, f"{NPZ}\nsize = 8"), 'data: "npz" takes no size'),
    "data-of-size-0": ((NPZ, f"{NPZ}\nsize = 0"), "data.size: should be greater than or equal to 1, not 0"),
    "no-unlabelled": ((NPZ, f"{NPZ}\nunlabelled = {{}}"), "data.unlabelled.count is missing"),
    "too-many-unlabelled": (
        (NPZ, f"{NPZ}\nunlabelled = {{ count = 60 }}"),
        "data.unlabelled.count: 60 leaves nothing to train on: the training split has 64 and validation takes 6",
    ),
    "attack-s-field": (('"fgsm"', '{name = "pgd", step = 3}'), "attacks[0]: no field 'step'; did you mean 'steps'?"),
    "own-attack-absent": (('"fgsm"', '{file = "gone.py"}'), "evaluation.attacks[0]: gone.py: cannot be read: No such"),
    "own-attack-is-none": (('"fgsm"', '{file = "empty.py"}'), "empty.py: should define one subclass of advbench.att"),
    "own-collector-absent": (
        ("[evaluation]", '[collect]\nx = {file = "away.py"}\n[evaluation]'),
        "collect: away.py: cannot be read: No such file",
    ),
    "too-many-examples": ((NPZ, f"{NPZ}\ntest = 100"), "data.test: 100 is more than the 32 examples of the test split"),
    "syntax": (("epochs = 1", "epochs = = 1"), "(at line 16, column 10)"),
    "truncated-npz": (("tiny.npz", "truncated.npz"), "truncated.npz: not a whole .npz archive: truncated, or another"),
    "truncated-mnist": ((NPZ, 'name = "mnist"'), "train-images-idx3-ubyte: 415 bytes, but its header says 416"),
    "raises": ((STANDARD, 'file = "raises.py"'), "raises.py: raised on import: ValueError: a b (line 2)"),
    "exits": ((STANDARD, 'file = "exits.py"'), "exits.py: raised on import: SystemExit: 0 (line 2)"),
    "absent-file": ((STANDARD, 'file = "absent.py"'), "absent.py: cannot be read: No such file or directory"),
    "no-defense-in-it": ((STANDARD, 'file = "empty.py"'), "empty.py: should define one subclass of advbench.def"),
}
"""What a person may get wrong in a task: (the right text, the wrong one), and what the line should say of it."""


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that a folder holds."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
        if "__pycache__" not in p.parts  # Python's own, of a defense file that was loaded
    }


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory, tiny, command):
    """One run over a folder with a task file for each mistake, and that folder's content before and after."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, (change, _) in MISTAKES.items():
        tiny(folder, name, change)
    (folder / "raises.py").write_text("x = 1\nraise ValueError('a\\nb')\n", encoding="utf-8")
    (folder / "exits.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    (folder / "empty.py").write_text("", encoding="utf-8")
    data = folder / "data"
    (data / "truncated.npz").write_bytes((data / "tiny.npz").read_bytes()[:-100])
    for split in ("train", "t10k"):
        raw = data / "MNIST" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        images = struct.pack(">4I", 0x803, 20, 5, 4) + bytes(20 * 5 * 4 - 1)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 20) + bytes(20))
    before = tree(folder)
    return command(folder, "run", "."), before, tree(folder)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_task_is_one_line_that_says_what_to_change(mistaken, name):
    done = mistaken[0]
    sentence = MISTAKES[name][1]
    where = f"advbench: {name}.toml: "
    if name.startswith("truncated"):
        where = "advbench: data/"  # the file that is wrong is the data's

    mine = [line for line in done.stderr.splitlines() if sentence in line]
    assert len(mine) == 1, done.stderr
    assert mine[0].startswith(where)


def test_all_mistakes_of_all_files_are_told_at_once_and_nothing_else(mistaken):
    done, before, after = mistaken

    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == len(MISTAKES), done.stderr
    assert all(line.startswith("advbench: ") for line in done.stderr.splitlines())
    assert after == before, "nothing is written"


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert done.returncode == 2, done.stdout + done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("advbench: ")
    return line.removeprefix("advbench: ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "absent"], "absent: no such file or folder"),
        (["run", "tasks/"], "tasks: no such file or folder; leave it out for the starter suite"),
        (["run", "tiny.toml", "--only", "tiny", "--only", "Tiny*"], "--only 'Tiny*' matches no job; there are: tiny/"),
        (["run", "hollow"], "hollow: no task file (*.toml) in this folder; its subfolders are suites of their own"),
        (["run", "tiny.toml", "--device", "gpu"], "--device gpu: not on this machine, which has cpu"),
        (["run", "tiny.toml", "--only", "Tiny*"], "--only 'Tiny*' matches no job; there are: tiny/standard"),
        (["run", "tiny.toml", "--results", "a-file/x"], "a-file/x: cannot be written: Not a directory; choose another"),
        (["run", "tiny.toml", "--results", "a-file"], "a-file: cannot be written: Not a directory; choose another"),
        (["run", "tiny.toml", "--results", "mine"], "mine/README.md: not written by `advbench board`, so it stays"),
        (["board", "absent"], "absent: no such folder; give a folder that holds records/"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_on_the_command_line_is_one_line_and_writes_nothing(tmp_path: Path, tiny, command, arguments, line):
    tiny(tmp_path)
    (tmp_path / "hollow" / "deeper").mkdir(parents=True)
    (tmp_path / "hollow" / "deeper" / "task.toml").touch()
    (tmp_path / "a-file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my project", encoding="utf-8")
    before = tree(tmp_path)

    assert refused(command(tmp_path, *arguments)).startswith(line)
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the path below a file stands in for it")
def test_a_results_folder_without_permission_is_refused(tmp_path: Path, tiny, command):
    tiny(tmp_path)
    (tmp_path / "locked").mkdir(mode=0o500)

    line = refused(command(tmp_path, "run", "tiny.toml", "--results", "locked/results"))
    assert line == "locked/results: cannot be written: Permission denied; choose another folder with --results"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["run", "--onyl", "x"], "--only"),
        (["run", "--jobs", "0"], "greater than or equal to 1"),
        (["list", "attack"], "attacks"),
    ],
)
def test_what_typer_refuses_also_ends_with_2_and_no_traceback(tmp_path: Path, command, arguments, told):
    done = command(tmp_path, *arguments)

    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_debug_shows_where_an_error_came_from_and_keeps_code_and_line(tmp_path: Path, command):
    done = command(tmp_path, "run", "absent", "--debug")

    assert done.returncode == 2
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1] == "advbench: absent: no such file or folder"


@pytest.mark.parametrize(
    "name", ["run", "validate", "board", "list", "schema", "reproduce", "doctor", "export", "import", "new"]
)
def test_help_shows_an_example_that_names_its_command(tmp_path: Path, command, name):
    done = command(tmp_path, name, "--help")

    assert done.returncode == 0
    assert f"Example: advbench {name}" in done.stdout


def test_version_is_a_line(tmp_path: Path, command):
    from advbench import __version__

    assert command(tmp_path, "--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize("kind", ["tasks", "attacks"])
def test_list_with_json_prints_json_only(tmp_path: Path, command, kind):
    done = command(tmp_path, "list", kind, "--json")

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {"name", "about"} <= set(rows[0])


def test_a_reader_that_stops_reading_gets_no_traceback(tmp_path: Path, command_env):
    shell = f"{sys.executable} -m advbench list tasks --json | true"
    done = subprocess.run(
        ["/bin/sh", "-c", shell], cwd=tmp_path, env=command_env, capture_output=True, text=True, check=False
    )

    assert done.stderr == ""

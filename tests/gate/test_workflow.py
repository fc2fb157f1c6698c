"""docs/gate.yml is copied as it is: a workflow, whose lines are of this version and whose last step does as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.main import get_command

from advbench import cli


@pytest.fixture(scope="module")
def job(repo: Path) -> dict[str, Any]:
    workflow = yaml.safe_load((repo / "docs/gate.yml").read_text("utf-8"))
    # YAML 1.1 reads the key "on" as true.
    assert workflow[True] == "pull_request"
    assert workflow["permissions"] == {"contents": "read"}
    return workflow["jobs"]["gate"] | {"env": workflow["env"]}


def scripts(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_step_uses_an_action_of_a_version_or_runs_a_script_that_a_shell_can_read(job):
    assert job["timeout-minutes"] > 0
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/x@v1"))
    for script in scripts(job):
        assert subprocess.run(["/bin/bash", "-n"], input=script, text=True, check=False).returncode == 0
    places = {step.get("with", {}).get("path") for step in job["steps"]}
    assert {step["working-directory"] for step in job["steps"] if "run" in step} <= places


def test_its_commands_take_what_it_gives_them(job, repo: Path):
    text = "\n".join(scripts(job)).replace("\\\n", " ")
    lines = [
        line.split("advbench ", 1)[1].split() for line in text.splitlines() if line.strip().startswith("advbench ")
    ]
    commands = get_command(cli.app).commands  # pyright: ignore[reportAttributeAccessIssue]

    assert [words[0] for words in lines] == ["run", "check"]
    for name, *words in lines:
        taken = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= taken
    assert "pip install -c constraints.txt ." in text
    assert (repo / "constraints.txt").is_file()


@pytest.mark.parametrize(
    ("lost", "n", "code", "said"),
    [(0, 2000, 0, "PASS"), (400, 2000, 1, "FAIL"), (0, 30, 0, "::warning::inconclusive, see the summary")],
    ids=["same", "worse", "few"],
)
def test_the_last_step_stops_what_fails_and_warns_of_what_is_open(
    tmp_path: Path, job, lay_record, command_env, lost, n, code, said
):
    rng = np.random.default_rng(0)
    for folder, wrong in (("baseline", 0), ("results", lost)):
        for seed in range(3):
            stands = rng.permutation(n) >= n // 4
            stands[:wrong] = False
            lay_record(tmp_path / folder, "my-defense", seed, stands)
    for file in tmp_path.glob("*/records/t"):
        file.rename(file.with_name("mine"))
    for file in tmp_path.glob("results/records/*/*/record.json"):
        file.write_text(re.sub(r'"(my-defense-\d)"', r'"new-\1"', file.read_text("utf-8")), "utf-8")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/advbench").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m advbench "$@"\n', "utf-8")
    (tmp_path / "bin/advbench").chmod(0o755)
    env = command_env | {"MARGIN": str(job["env"]["MARGIN"]), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"

    # As the runner does it: https://docs.github.com/actions, "jobs.<id>.steps[*].shell".
    words = ["/bin/bash", "-e", "-c", scripts(job)[-1]]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout
    assert "advbench check: " in (tmp_path / "summary.md").read_text("utf-8")
    assert (tmp_path / "gate.xml").is_file()

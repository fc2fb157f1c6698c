"""Options that several commands share mean the same in each, and refuse the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from advbench.options import DataRoot, Jobs, Results
from advbench.spec import BadInput

app = typer.Typer()


@app.command()
def said(results: Results = Path("results"), data_root: DataRoot = Path("data"), jobs: Jobs = None) -> None:
    typer.echo(f"{results} {data_root} {jobs}")


def run(*words: str, **env: str) -> str:
    done = CliRunner().invoke(app, words, env=env)
    if isinstance(done.exception, BadInput):
        raise done.exception
    return done.output if done.exit_code else done.output.strip()


def test_what_is_said_counts_then_the_environment_then_the_default():
    assert run() == "results data None"
    assert run(ADVBENCH_DATA="/sets") == "results /sets None"
    assert run("--results", "r/s", "--data-root", "d", "--jobs", "1", ADVBENCH_DATA="/sets") == "r/s d 1"


@pytest.mark.parametrize("url", ["s3://bucket/results", "gs://x", "hdfs+2.a-b://x"])
def test_results_go_into_a_folder_and_not_to_a_url(url: str):
    with pytest.raises(BadInput, match=r"^--results .*: is a folder, not a URL; .*`run --store URL`$"):
        run("--results", url)


@pytest.mark.parametrize("folder", ["c:/results", "/s3:/x", "a b://x", "S3://x"])
def test_a_folder_that_looks_a_little_like_a_url_is_one(folder: str):
    assert run("--results", folder) == f"{Path(folder)} data None"


def test_no_job_at_a_time_is_none():
    assert "--jobs" in run("--jobs", "0")
    assert "1" in run("--jobs", "0").split("range")[-1]

"""What is finished at a URL is not run again, what is finished here comes there, and what is broken counts not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from advbench.plan import Item, Job
from advbench.record import load
from advbench.results.store import Store
from advbench.results.verify import verify
from advbench.spec import BadInput


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory, tiny, command):
    """Two jobs that were run with a store, and what was said."""
    folder = tmp_path_factory.mktemp("sent")
    tiny(folder, "tiny", ("seeds = [0]", "seeds = [0, 1]"))
    return folder, command(folder, "run", "tiny.toml", "--jobs", "1", "--store", (folder / "store").as_uri())


@pytest.mark.slow
def test_what_one_machine_finished_another_does_not_run(sent, command, contents):
    folder, first = sent
    assert (first.returncode, first.stderr) == (0, "")
    assert contents(folder / "store" / "records") == contents(folder / "results" / "records")
    assert not (folder / "store" / "runs").exists(), "weights stay where they were trained"

    url = (folder / "store").as_uri()
    planned = command(folder, "run", "tiny.toml", "--results", "other", "--store", url, "--dry-run")
    assert "2 jobs: 2 cached" in planned.stdout
    assert not (folder / "other").exists()

    done = command(folder, "run", "tiny.toml", "--results", "other", "--store", url)
    assert done.returncode == 0, done.stderr
    assert "2 jobs: 2 cached" in done.stdout
    assert "start" not in done.stdout
    assert contents(folder / "other" / "records") == contents(folder / "results" / "records")
    assert (folder / "other" / "index.html").is_file()
    assert verify(folder / "other").broken == []


@pytest.mark.slow
def test_what_is_broken_there_is_run_here_and_sent_again(sent, command, contents, tmp_path):
    folder, _ = sent
    store = tmp_path / "store"
    for name, content in contents(folder / "store").items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(content)
    table = store / "records/tiny/standard-s0/examples.parquet"
    table.write_bytes(table.read_bytes()[:-9] + b"something")
    record = store / "records/tiny/standard-s1/record.json"
    record.write_text(record.read_text().replace('"seed": 1', '"seed": 7'))

    done = command(folder, "run", "tiny.toml", "--jobs", "1", "--results", "mended", "--store", store.as_uri())

    assert done.returncode == 0, done.stderr
    assert f"{store.as_uri()}: tiny/standard-s0 is not what was written; its job runs here" in done.stdout
    assert "2 jobs: 2 to run" in done.stdout
    assert contents(store / "records") == contents(folder / "mended" / "records")
    assert verify(store).broken == []


@pytest.mark.slow
def test_a_record_of_another_job_is_none_of_this_one(sent, command, tiny, tmp_path):
    folder, _ = sent
    tiny(tmp_path, "tiny", ("seeds = [0]", "seeds = [0, 1]"), ("epochs = 1", "epochs = 2"))

    planned = command(tmp_path, "run", "tiny.toml", "--store", (folder / "store").as_uri(), "--dry-run")

    assert "2 jobs: 2 to run" in planned.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nowhere://bucket/records", "nowhere"),
        ("s3://bucket/records", "s3fs"),
        ("file://FOLDER/tiny.toml/store", "Not a directory"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line_before_any_job(sent, command, tiny, tmp_path, url, why):
    tiny(tmp_path, "tiny")

    done = command(tmp_path, "run", "tiny.toml", "--store", url.replace("FOLDER", str(tmp_path)))

    assert done.returncode == 2
    assert done.stderr.startswith("advbench: --store ")
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "results" / "records").exists()


@pytest.mark.slow
def test_a_url_for_results_is_refused(sent, command, tmp_path):
    done = command(tmp_path, "run", "--results", "s3://bucket/results")

    assert done.returncode == 2
    assert "--store URL" in done.stderr
    assert list(tmp_path.iterdir()) == []


class Flaky(MemoryFileSystem):
    """Takes a number of writes, and no more."""

    protocol = "flaky"
    store: dict[str, Any] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    left = 0

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if not Flaky.left:
            raise PermissionError("the token\nhas run out")
        Flaky.left -= 1
        super().pipe_file(path, value, mode, **kwargs)


@pytest.fixture
def flaky(tmp_path, lay):
    """A store that takes no writes, and the results folder of two jobs with their lines of a plan."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.store.clear()
    Flaky.left = 0
    return Store("flaky://far/away"), tmp_path, [_line(lay(tmp_path, label)) for label in "ab"]


def _line(folder: Path) -> Item:
    """The line of a plan whose job a record made by hand is of."""
    record = load(folder / "record.json")

    class Known(Job):
        @property
        def id(self) -> str:
            return record.id

    return Item.model_construct(
        task=record.task, label=record.label, seed=record.seed, job=Known.model_construct(), cached=False, skip=""
    )


def test_what_could_not_be_sent_is_told_and_sent_the_next_time(flaky, tmp_path_factory, contents):
    store, results, items = flaky
    Flaky.left = 1  # a table, and then no more

    store.send(results, items[0].path)
    assert store.unsent == {"t/a-s0": "the token has run out"}
    assert [item.cached for item in Store(store.url).mark(items)] == [False, False], "tables without their JSON"
    (line,) = store.complete(results, items)
    assert line.startswith("flaky://far/away: t/a-s0 and 1 more could not be written there: the token has run out; ")

    Flaky.left = 100
    again = Store(store.url)
    again.mark(items)
    assert again.complete(results, items) == []
    assert [item.cached for item in Store(store.url).mark(items)] == [True, True]
    used = 100 - Flaky.left
    assert again.complete(results, items) == []
    assert used == 100 - Flaky.left, "what is there is not sent again"

    other = tmp_path_factory.mktemp("other")
    third = Store(store.url)
    third.mark(items)
    assert third.bring(items, other) == []
    assert contents(other / "records") == contents(results / "records")


def test_a_store_that_takes_nothing_is_told_before_the_first_job(flaky):
    with pytest.raises(BadInput, match="--store flaky://far/away: the token has run out"):
        flaky[0].try_out()


def test_a_failed_job_there_is_no_finished_one(flaky, lay):
    store, results, _ = flaky
    Flaky.left = 100
    failed = _line(lay(results, "a", status="failed", error="Diverged: NaN"))
    store.send(results, failed.path)

    assert [item.cached for item in Store(store.url).mark([failed])] == [False]


@pytest.fixture
def filled(flaky) -> tuple[Store, Path, list[Item]]:
    """The same after both jobs were sent, seen by another machine that has marked them."""
    store, results, items = flaky
    Flaky.left = 100
    assert store.complete(results, items) == []
    other = Store(store.url)
    other.mark(items)
    return other, results, items


@pytest.mark.parametrize("broken", ["table", "no table", "record"])
def test_what_is_broken_there_does_not_come_and_its_job_runs_here(filled, tmp_path_factory, broken: str):
    store, _, items = filled
    out = tmp_path_factory.mktemp("out")
    at = f"{store.root}/records/t/a-s0"
    if broken == "table":
        store.system.pipe_file(f"{at}/examples.parquet", b"something")
    elif broken == "no table":
        store.system.rm_file(f"{at}/examples.parquet")
    else:
        store.system.pipe_file(f"{at}/record.json", b"{}")

    assert store.bring(items, out) == ["flaky://far/away: t/a-s0 is not what was written; its job runs here"]
    assert [path.parent.name for path in out.rglob("record.json")] == ["b-s0"]
    assert list(store.there) == ["t/b-s0"]


def test_a_mark_makes_a_job_cached_whatever_kept_it_from_running(filled):
    store, _, (one, other) = filled
    asked: list[str] = []
    store.system.invalidate_cache = lambda: asked.append("looks anew")
    none = Item(task="t", label="none", seed=0, base=Path(), skip="no data")
    cannot, strange = one.model_copy(update={"skip": "no data"}), other.model_copy(update={"label": "strange"})
    done = strange.model_copy(update={"cached": True})

    found = store.mark([cannot, other, none, strange, done])
    assert [(item.cached, item.skip) for item in found] == [
        *((True, ""), (True, ""), (False, "no data"), (False, ""), (True, "")),
    ]
    assert asked == ["looks anew"]
    del store.system.invalidate_cache


def test_a_trial_leaves_nothing_there(flaky):
    store, _, _ = flaky
    Flaky.left = 1
    store.try_out()
    assert store.system.find(store.root) == []
    assert Flaky.left == 0


def test_one_that_stays_behind_is_told_alone_and_without_a_word_by_its_error(flaky, monkeypatch):
    store, results, items = flaky

    def silent(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(store.system, "pipe_file", silent, raising=False)
    assert store.complete(results, items[:1]) == [
        "flaky://far/away: t/a-s0 could not be written there: TimeoutError; the same command sends what is missing"
    ]

"""What a page has room for, and what it says of the rest."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import paged
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import states
from safetensors.numpy import save as safetensors

from advbench.board import build, room
from advbench.board.room import turns
from advbench.board.table import sections
from advbench.record import Measure, Record, Scores


def page(home: Path) -> str:
    build(home)
    return (home / "index.html").read_text("utf-8")


def test_every_defense_shows_its_first_seed_before_any_shows_its_second(make: Any):
    found = sections([make("a", 0), make("a", 1), make("b", 0, 0.4), make("c", 3, task="u")])

    assert [place for place, _ in turns(found)] == [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]


def test_what_has_no_room_is_left_out_and_the_rest_is_there(
    tmp_path: Path, lay: Any, make: Any, monkeypatch: pytest.MonkeyPatch
):
    home = lay(tmp_path, *(make(label, seed) for label in "ab" for seed in range(3)))
    whole = paged.parts(page(home))
    size = room.size(whole["record-0-0-0"], whole["task-0"]["held"]["0-0"])
    monkeypatch.setattr(room, "SHARES", dict.fromkeys(room.SHARES, 0.0) | {"details": 1.0})
    monkeypatch.setattr(room, "SIZE", len(bare(home, monkeypatch).encode()) + 3 * size + 2 * room.FRAME)
    some = paged.parts(page(home))

    assert len([name for name in whole if name.startswith("record-")]) == 6
    held = ["0-0", "0-1", "1-0"]
    assert [name for name in some if name.startswith("record-")] == [f"record-0-{place}" for place in held]
    assert list(some["task-0"]["held"]) == held
    assert [len(group["seeds"]) for group in some["board"]["tasks"][0]["groups"]] == [3, 3]


def bare(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page with no room for any record."""
    with monkeypatch.context() as patch:
        patch.setattr(room, "SIZE", 0)
        found = page(home)
    assert not [name for name in paged.parts(found) if name.startswith("record-")]
    return found


def test_each_kind_has_its_share_and_what_those_before_it_left(
    tmp_path: Path, lay: Any, make: Any, monkeypatch: pytest.MonkeyPatch
):
    home = lay(tmp_path, make("a"), make("b"))
    noise = np.random.default_rng(0).bytes(2_500_000).hex()
    monkeypatch.setattr(room.arrays, "of", lambda *_: [noise[:5_000]])
    monkeypatch.setattr(room.examples, "of", lambda *_: {"rows": noise[:5_000], "standing": [[0.1], [0.5]]})
    monkeypatch.setattr(room.examples, "images", lambda *_: noise)
    # Of what settings have not used, arrays and examples have enough; the images are larger than all of it.
    monkeypatch.setattr(room, "SHARES", {"details": 0.997, "arrays": 0.001, "examples": 0.001, "images": 0.001})
    monkeypatch.setattr(room, "SIZE", 3_500_000)
    held = [paged.record(page(home), f"0-{g}-0") for g in (0, 1)]

    for one in held:
        assert one["arrays"] == [noise[:5_000]]
        assert (one["examples"], one["standing"]) == ({"rows": noise[:5_000]}, [[0.1], [0.5]])
        assert "images" not in one
        assert list(one["left"]) == ["images"]
        assert "adversarial.safetensors of the record" in one["left"]["images"]


def test_what_fits_to_the_byte_is_shown(make: Any):
    rows = list(turns(sections([make("a")])))
    [(place, row)] = rows
    images = np.random.default_rng(0).bytes(2_000).hex()

    def given(bytes_: int) -> tuple[int, dict[str, Any]]:
        held = room.Held({place: {}}, {place: {}})
        left = room._add(held, "images", lambda *_: images, bytes_, rows, {room.key(row.record): Path()})
        return left, held.records[place]

    assert given(room.size(images)) == (0, {"images": images})
    left, said = given(room.size(images) - 1)
    assert (left, list(said)) == (room.size(images) - 1, ["left"])


def full(results: Path, tasks: int, defenses: int, seeds: int) -> None:
    """Records with all that a page can show of one: of 30 epochs, 1,000 examples and 8 images of noise."""
    rng = np.random.default_rng(0)
    count = 1_000
    columns = {
        "index": np.arange(count),
        "label": rng.integers(0, 10, count),
        "predicted": rng.integers(0, 10, count),
        "margin": rng.normal(2, 2, count),
        "distance": rng.uniform(0, 0.3, count),
        "broken_by": rng.choice(["clean", "fgsm", "pgd", "autoattack"], count).tolist(),
        "forward": rng.integers(100, 4_000, count),
        "backward": rng.integers(100, 4_000, count),
    }
    table = io.BytesIO()
    pq.write_table(pa.table(columns), table)
    noise = rng.random((2, 8, 3, 32, 32), dtype=np.float32)
    images = safetensors({"index": np.arange(8), "images": noise[0], "clean": noise[1]})
    files = {"examples.parquet": table.getvalue(), "adversarial.safetensors": images}
    epochs = states.history(30, False, 0.5, rng)
    curves = [f"param-hessian/{loss}_density{at}" for loss in ("clean", "fixed", "moving") for at in ("", "_at")]
    for t, g, seed in itertools.product(range(tasks), range(defenses), range(seeds)):
        right = np.arange(count) < 300 + 5 * g + seed
        scores = Scores(clean=states.accuracy(right), robust=states.accuracy(right, "autoattack"))
        meaning = "what number {} says, in a sentence of some length"
        values = {f"q{i}": Measure(value=rng.random(), unit="nats", meaning=meaning.format(i)) for i in range(90)}
        arrays = {name: rng.random(120) for name in curves}
        arrays |= {"sharpness/surface_at": rng.random(41), "sharpness/clean_surface": rng.random((41, 41))}
        record = Record(
            id=f"{t}-{g}-{seed}",
            task=f"task-{t}",
            defense=f"defense-{g}",
            label=f"defense-{g}",
            seed=seed,
            status="ok",
            job=states.job(f"task-{t}", f"defense-{g}", seed),
            scores=scores,
            checkpoints={"best": scores},
            best_epoch=3,
            history=epochs,
            measures={"margins": values},
            provenance={"weights_sha256": rng.bytes(32).hex(), "source": rng.bytes(600).hex()},
        )
        folder = results / "records" / record.task / f"{record.label}-s{seed}"
        states.put(record, folder, files | {"measures.safetensors": safetensors(arrays)})


@pytest.mark.slow
def test_a_page_of_four_hundred_full_records_stays_under_eight_megabytes_and_says_what_it_lacks(tmp_path: Path):
    full(tmp_path, tasks=4, defenses=20, seeds=5)
    shown = page(tmp_path)
    found = paged.parts(shown)
    records = {name: part for name, part in found.items() if name.startswith("record-")}

    assert 7_000_000 < len(shown.encode()) < 8_000_000
    assert len(records) == 400
    for kind, file in room.FILES.items():
        holding = [name for name in records if kind in paged.record(shown, name.removeprefix("record-"), found)]
        said = {name: part["left"][kind] for name, part in records.items() if kind in part.get("left", {})}
        # First seeds first, and whatever is not there is said.
        assert 50 < len(holding) < 400
        assert {name for name in records if name.endswith("-0")} <= {*holding} or kind == "images"
        assert {*said} == {*records} - {*holding}
        assert all(file in words for words in said.values())
    # Each has its part of the examples and of the images: 100,000 rows and 2.5 MB of pixels for all of them.
    some = records["record-0-0-0"]
    assert (len(some["examples"]["index"]), some["examples"]["n"]) == (250, 1_000)
    assert (len(some["images"]["pixels"]), some["images"]["n"]) == (2, 8)

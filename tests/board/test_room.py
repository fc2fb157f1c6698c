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

from advbench.board import build, embed, room
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


def test_what_records_say_fits_to_the_byte_and_else_leaves_no_words_behind(make: Any):
    measure = {"fosc": {"mean": Measure(value=1.0, unit="nats", meaning="what it is")}}
    rows = list(turns(sections([make("a"), make("b", 0, 0.4).model_copy(update={"measures": measure})])))
    folders = {room.key(row.record): Path("records/t/x") for _, row in rows}
    (one, _), (other, _) = rows
    held, left = room._settings(rows, folders, 10**6)
    # Words that a record brings are its own.
    words = [[], [("nats", "what it is")]]
    sizes = [
        room.size(held.records[place], held.courses[place], told) for (place, _), told in zip(rows, words, strict=True)
    ]

    assert 10**6 - left == sum(sizes)
    assert held.task(0)["words"] == [["nats", "what it is"]]
    assert list(held.task(0)["held"]) == ["0-0", "1-0"]
    assert held.task(1) == {"held": {}, "words": []}
    exact, left = room._settings(rows, folders, sum(sizes))
    assert (list(exact.records), left) == ([one, other], 0)
    less, left = room._settings(rows, folders, sum(sizes) - 1)
    assert (list(less.records), list(less.courses), left) == ([one], [one], sizes[1] - 1)
    assert less.task(0)["words"] == []


def test_after_so_many_records_without_room_no_further_ones_are_tried(make: Any, monkeypatch: pytest.MonkeyPatch):
    noise = np.random.default_rng(0).bytes(20_000).hex()
    said = [{"provenance": {"said": noise}} if seed in (1, 2) else {} for seed in range(4)]
    records = [make("a", seed).model_copy(update=more) for seed, more in enumerate(said)]
    rows = list(turns(sections(records)))
    folders = {room.key(row.record): Path("records/t/x") for _, row in rows}

    for misses, seeds in ((2, [0]), (3, [0, 3])):
        monkeypatch.setattr(room, "MISSES", misses)
        held, _ = room._settings(rows, folders, 8_000)
        assert [seed for _, _, seed in held.records] == seeds


def test_each_record_has_its_part_of_rows_and_pixels(make: Any, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(room.arrays, "of", lambda *_: None)
    monkeypatch.setattr(room.examples, "of", lambda _f, _r, rows: asked.append(("rows", rows)))
    monkeypatch.setattr(room.examples, "images", lambda _f, _r, pixels: asked.append(("pixels", pixels)))
    found = sections([make(seed=seed) for seed in range(2)])
    folders = {room.key(row.record): Path("records/t/x") for row in found[0].rows}

    room.fill(found, folders, 10**6)
    assert asked == [("rows", 50_000)] * 2 + [("pixels", 1_250_000)] * 2
    asked.clear()
    monkeypatch.setattr(room, "ROWS", 198)
    room.fill(found, folders, 10**6)
    assert asked[0] == ("rows", 100)
    assert sum(room.SHARES.values()) == pytest.approx(1)
    assert room.fill([], {}, 10**6) == room.Held()


def test_a_thousand_bytes_are_tried_and_fewer_are_not(make: Any):
    (alive, lone, dead) = turns(sections([make("a", 0), make("a", 1), make("a", 2, error="x")]))
    folders = {room.key(row.record): Path() for _, row in (alive, lone, dead)}
    tried: list[Any] = []

    def give(left: int) -> dict[str, Any]:
        # The second has no room for its settings, the third failed: neither is asked.
        held = room.Held({alive[0]: {}, dead[0]: {}}, {alive[0]: {}, dead[0]: {}})
        assert room._add(held, "images", lambda *at: tried.append(at), left, [alive, lone, dead], folders) == left
        assert held.records[dead[0]] == {}
        return held.records[alive[0]]

    assert (give(1_000), len(tried)) == ({}, 1)
    assert (list(give(999)), len(tried)) == (["left"], 1)


def test_a_part_takes_what_it_is_and_its_frame():
    assert room.size("a", ["b"]) == len(embed.packed("a")) + len(embed.packed(["b"])) + 150


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

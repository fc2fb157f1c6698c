"""Files beside a record: whole ones come to the page as they are, broken ones as a word on what is wrong."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import paged
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save as tensors

from advbench.board import build
from advbench.board.beside import Lost
from advbench.board.examples import images, of, standing
from advbench.record import Record, save


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


EXAMPLES = {
    "index": [3, 5, 9],
    "label": [0, 1, 2],
    "predicted": [0, 7, 2],
    "margin": [1.23456, -0.5, 2.0],
    "distance": pa.array([0.12346, None, 0.3], pa.float64()),
    "broken_by": pa.array(["pgd", "clean", None], pa.string()),
    "forward": [10, 1, 100],
    "backward": [5, 0, 50],
}
IMAGES = np.linspace(0, 1, 4 * 1 * 2 * 3, dtype=np.float32).reshape(4, 1, 2, 3)
SURFACE = {"sharpness/surface_at": np.array([-1.0, 0, 1]), "sharpness/clean_surface": np.arange(9.0).reshape(3, 3)}


def held(folder: Path) -> dict[str, Any]:
    """What the page has of the only record."""
    build(folder)
    return paged.record((folder / "index.html").read_text("utf-8"))


@pytest.fixture
def write(tmp_path: Path, make: Any) -> Any:
    def to(**files: bytes) -> Path:
        names = {name.replace("__", "."): content for name, content in files.items()}
        save(make(), tmp_path / "records" / "t" / "pgd-at-s0", names)
        return tmp_path

    return to


def test_whole_files_come_as_they_are(write: Any):
    images = tensors({"index": np.array([3, 9, 11, 12]), "images": IMAGES, "clean": IMAGES[::-1].copy()})
    found = held(
        write(
            examples__parquet=parquet(**EXAMPLES),
            adversarial__safetensors=images,
            measures__safetensors=tensors(SURFACE),
        )
    )

    assert found["examples"] == {
        "n": 3,
        "index": [3, 5, 9],
        "label": [0, 1, 2],
        "predicted": [0, 7, 2],
        "attacks": ["pgd", "clean"],
        "broken": [0, 1, -1],
        "margin": [1.23, -0.5, 2.0],
        "distance": [0.123, None, 0.3],
        "passes": [15, 1, 150],
    }
    # What is wrong without an attack has fallen at nought.
    assert found["standing"] == [[0.0, 0.1235, 0.3], [0.6667, 0.3333, 0.0]]
    assert found["images"]["shape"] == [1, 2, 3]
    pixels = [list(base64.b64decode(text)) for text in found["images"]["pixels"]]
    assert pixels == (255 * IMAGES).round().astype(int).reshape(4, -1).tolist()
    assert found["images"]["clean"] == found["images"]["pixels"][::-1]
    assert found["arrays"]["surface"] == {"clean": {"at": [-1, 0, 1], "loss": [[0, 1, 2], [3, 4, 5], [6, 7, 8]]}}
    assert "left" not in found


def test_colour_is_kept_and_large_images_are_thinned(write: Any):
    large = np.zeros((1, 3, 130, 65), np.float32)
    large[:, 1] = 1
    found = held(write(adversarial__safetensors=tensors({"index": np.array([0]), "images": large})))["images"]

    assert (found["step"], found["shape"]) == (3, [3, 44, 22])
    assert base64.b64decode(found["pixels"][0]) == bytes([0, 255, 0]) * 44 * 22


def test_a_long_name_said_a_million_times_is_one_name(write: Any):
    names = pa.DictionaryArray.from_arrays(np.zeros(1_000_000, np.int32), ["x" * 100_000])
    long = {name: np.arange(1_000_000) for name in ("index", "label", "predicted", "forward")}
    found = held(write(examples__parquet=parquet(**long, broken_by=names.cast(names.type))))["examples"]

    assert (found["n"], len(found["index"]), [len(name) for name in found["attacks"]]) == (1_000_000, 1000, [100_000])


def test_many_large_images_are_few_and_small_ones_more(write: Any):
    for side, count in ((8, 24), (32, 6), (64, 1)):
        images = {"index": np.arange(30), "images": np.zeros((30, 3, side, side), np.float32)}
        found = held(write(adversarial__safetensors=tensors(images)))["images"]
        assert (len(found["pixels"]), len(found["index"]), found["n"]) == (count, count, 30)


BROKEN = {
    "no parquet": ("examples__parquet", b"PAR1 and more", "examples.parquet is not a whole table"),
    "columns": ("examples__parquet", parquet(index=[1]), "examples.parquet is not a whole table"),
    "text": (
        "examples__parquet",
        parquet(**EXAMPLES | {"label": ["<b>", "", ""]}),
        "examples.parquet has other things than numbers in label",
    ),
    "lists": (
        "examples__parquet",
        parquet(**EXAMPLES | {"margin": [[1.0], [2.0], [3.0]]}),
        "examples.parquet has other things than numbers in margin",
    ),
    "numbers": (
        "examples__parquet",
        parquet(**EXAMPLES | {"broken_by": [1, 2, 3]}),
        "examples.parquet lacks a column",
    ),
    "rows": (
        "examples__parquet",
        parquet(broken_by=pa.nulls(3_000_000, pa.string())),
        "examples.parquet has 3,000,000 rows",
    ),
    "no tensors": ("adversarial__safetensors", b"\xff" * 64, "adversarial.safetensors holds no tensors"),
    "shape": (
        "adversarial__safetensors",
        tensors({"index": np.array([1]), "images": np.zeros((1, 5, 2, 2))}),
        "adversarial.safetensors has images of shape (1, 5, 2, 2)",
    ),
    "few": (
        "adversarial__safetensors",
        tensors({"index": np.array([1, 2]), "images": np.zeros((1, 1, 2, 2))}),
        "adversarial.safetensors has images of shape (1, 1, 2, 2), not (2, 1 or 3, H, W)",
    ),
    "holes": (
        "examples__parquet",
        parquet(**EXAMPLES | {"label": pa.array([0, None, 2], pa.int64())}),
        "examples.parquet lacks a column, or has another kind of numbers in it",
    ),
    "words": ("measures__safetensors", b"{}", "measures.safetensors holds no tensors"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_said_and_the_rest_is_shown(write: Any, name: str):
    file, content, says = BROKEN[name]
    found = held(write(**{file: content}))

    [(_, why)] = found["left"].items()
    assert why.startswith(says)
    assert found["id"]


LACKING = "lacks images or their index"


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": IMAGES}, LACKING),
        ({"index": np.arange(4)}, LACKING),
        ({"index": np.zeros((4, 2), int), "images": IMAGES}, LACKING),
        ({"index": np.zeros(4), "images": IMAGES}, LACKING),
        ({"index": np.arange(1), "images": IMAGES[0]}, "has images of shape (1, 2, 3), not (1, 1 or 3, H, W)"),
        ({"index": np.arange(4), "images": IMAGES[:, :, :0]}, "has images of shape (4, 1, 0, 3)"),
    ],
)
def test_images_without_a_shape_or_an_index_are_lost(tmp_path: Path, make: Any, arrays: dict[str, Any], said: str):
    record = save(make(), tmp_path, {"adversarial.safetensors": tensors(arrays)})

    with pytest.raises(Lost, match=f"^adversarial.safetensors {re.escape(said)}"):
        images(tmp_path, record)


def test_numbers_that_a_table_holds_as_a_dictionary_are_numbers(tmp_path: Path, make: Any):
    coded = parquet(**EXAMPLES | {"label": pa.array([0, 1, 2]).dictionary_encode()})
    found = of(tmp_path, save(make(), tmp_path, {"examples.parquet": coded}))

    assert found is not None
    assert found["label"] == [0, 1, 2]


def test_clean_images_of_another_shape_and_of_none_are_left_out(tmp_path: Path, make: Any):
    odd = {"index": np.arange(4), "images": IMAGES, "clean": IMAGES[:, :, :1]}
    none = {"index": np.arange(0), "images": IMAGES[:0], "clean": IMAGES[:0]}
    found, nothing = (
        images(tmp_path, save(make(), tmp_path, {"adversarial.safetensors": tensors(one)})) for one in (odd, none)
    )

    assert found is not None
    assert "clean" not in found
    assert nothing is None


def test_a_record_with_little_room_shows_at_least_one_image_and_so_many_rows(write: Any, make: Any):
    folder = write() / "records" / "t" / "pgd-at-s0"
    files = {"examples.parquet": parquet(**EXAMPLES)}
    files["adversarial.safetensors"] = tensors({"index": np.arange(4), "images": IMAGES})
    record = save(make(), folder, files)

    for pixels, count in ((1, 1), (12, 2), (10**9, 4)):
        found = images(folder, record, pixels)
        assert found is not None
        assert (len(found["pixels"]), found["index"]) == (count, [*range(count)])
    rows = of(folder, record, 2)
    assert rows is not None
    assert (rows["n"], rows["index"], len(rows["standing"][0])) == (3, [3, 5], 3)
    assert (of(folder, make()), images(folder, make())) == (None, None)


def test_of_no_examples_none_stand():
    assert standing(np.zeros(0)) == [[], []]


def test_a_file_that_has_gone_or_changed_is_said(write: Any):
    folder = write(examples__parquet=parquet(**EXAMPLES), measures__safetensors=tensors(SURFACE))
    home = folder / "records" / "t" / "pgd-at-s0"
    (home / "examples.parquet").unlink()
    (home / "measures.safetensors").write_bytes(tensors({}))

    assert held(folder)["left"] == {
        "examples": "examples.parquet is missing",
        "arrays": "measures.safetensors is not the file that the record was written with",
    }


def test_nan_and_huge_numbers_are_drawn_as_nothing(write: Any):
    images = np.full((1, 1, 2, 2), np.nan, np.float32)
    images[0, 0, 0] = np.inf
    odd = {"sharpness/curve_at": np.array([0.0, np.inf]), "sharpness/clean_curve": np.array([np.nan, 1e300])}
    wrong = {"fosc/fosc_relative": np.full((2, 2), np.nan), "margins/clean_distance": np.zeros((2, 0, 3))}
    found = held(
        write(
            examples__parquet=parquet(**EXAMPLES | {"margin": [float("nan"), float("inf"), 1e300]}),
            adversarial__safetensors=tensors({"index": np.array([3]), "images": images}),
            measures__safetensors=tensors(odd | wrong),
        )
    )

    assert found["examples"]["margin"] == [None, None, 1e300]
    assert base64.b64decode(found["images"]["pixels"][0]) == bytes([255, 255, 0, 0])
    assert found["arrays"] == {"line": {"clean": [[0, None], [None, 1e300]]}}


def test_distances_of_many_examples_keep_their_ends_and_their_shares():
    distance = np.append(np.arange(1, 1001) / 1000, [np.nan] * 1000)
    at, share = standing(distance)

    assert len(at) == len(share) == 60
    assert (at[0], at[-1], share[0], share[-1]) == (0.001, 1.0, 0.9995, 0.5)
    assert np.array(share, float) == pytest.approx(1 - np.array(at, float) / 2, abs=1e-3)


def test_records_without_files_say_nothing_of_them(tmp_path: Path, records: list[Record], lay: Any):
    build(lay(tmp_path, *records))

    said = paged.parts((tmp_path / "index.html").read_text("utf-8"))
    assert len([name for name in said if name.startswith("record-")]) == len(records)
    assert '"left"' not in json.dumps(said)

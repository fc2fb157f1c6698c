"""Every damaged byte is found, files stay what their names say, and the predecessor takes a damaged file's place."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from advbench.seal import keep, mend, previous, seal, sound


def zipped() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weights": torch.arange(40.0), "at": {"epoch": 3}}, buffer)
    return buffer.getvalue()


CONTENT = {
    "a.pt": zipped(),
    "a.safetensors": save({"x": torch.arange(9), "y": torch.ones(2, 3)}, metadata={"key": "k"}),
    "a.json": json.dumps({"share": 0.7, "words": ["ä", None], "n": 3}).encode(),
}
NAMES = sorted(CONTENT)


def meaning(name: str, content: bytes) -> str:
    """What a reader of the format takes from it."""
    if name.endswith(".pt"):
        return str(torch.load(io.BytesIO(content), weights_only=True))
    if name.endswith(".json"):
        return str([json.loads(content).get(key) for key in ("share", "words", "n")])
    return str(sorted(load(content).items()))


@pytest.mark.parametrize("name", NAMES)
def test_a_sealed_file_is_still_of_its_format_and_says_the_same(name):
    content = seal(name, CONTENT[name])

    assert sound(name, content) is True
    assert sound(name, CONTENT[name]) is None
    assert meaning(name, content) == meaning(name, CONTENT[name])
    if name.endswith(".pt"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            assert len(archive.comment) == 64


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_found_wherever_it_changes_what_a_reader_takes(name):
    content = seal(name, CONTENT[name])
    found = 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        if sound(name, bytes(flipped)) is not False:
            # It fell on the seal's own name, or on a space between two words.
            assert meaning(name, bytes(flipped)) == meaning(name, content), place
        else:
            found += 1
    assert found > 0.9 * len(content)


def test_the_end_of_an_archive_is_held_to_its_seal_byte_by_byte():
    content = seal("a.pt", CONTENT["a.pt"])
    for place in range(1, 22 + 64 + 1):  # the record of its end, then the seal
        flipped = bytearray(content)
        flipped[-place] ^= 1
        assert sound("a.pt", bytes(flipped)) is False, place


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_cut_short_is_found_wherever_it_was_cut(name):
    content = seal(name, CONTENT[name])

    whole = content.rstrip()
    assert all(sound(name, content[:length]) is False for length in range(len(whole)))


def test_a_json_object_may_be_laid_out_anew():
    content = json.loads(seal("a.json", CONTENT["a.json"]))

    assert sound("a.json", json.dumps(dict(reversed(content.items())), indent=7).encode()) is True
    assert sound("a.json", json.dumps(content | {"n": 4}).encode()) is False


def test_other_formats_have_no_room():
    with pytest.raises(ValueError, match=r"a\.txt: no room"):
        seal("a.txt", b"text")


def state(number: int) -> bytes:
    return json.dumps({"state": number}).encode()


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """A file that was written twice."""
    path = tmp_path / "job" / "a.json"
    keep(path, state(1))
    keep(path, state(2))
    return path


def mended(path: Path) -> tuple[int | None, list[str]]:
    said: list[str] = []
    mend(path, said.append)
    return json.loads(path.read_bytes())["state"] if path.exists() else None, said


def test_what_is_sound_is_left_alone(twice):
    assert mended(twice) == (2, [])
    assert previous(twice).exists()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"state": 3, "sha256": "0"}', b"\xff" * 60])
def test_a_damaged_file_gives_way_to_its_predecessor_and_that_is_said(twice, damage):
    twice.write_bytes(damage)

    assert mended(twice) == (1, ["job/a.json was damaged: going on from the one before it"])
    assert mended(twice) == (1, [])
    keep(twice, state(4))
    assert mended(twice) == (4, [])


def test_a_kill_between_the_two_renames_leaves_the_predecessor(twice):
    twice.unlink()

    assert mended(twice) == (1, [])


def test_without_a_good_one_the_work_is_done_again(twice):
    for path in (twice, previous(twice)):
        path.write_bytes(b"{")

    assert mended(twice) == (None, ["job/a.json was damaged: what it held is done again"])
    assert list(twice.parent.iterdir()) == []


def test_nothing_to_mend_is_nothing_to_say(tmp_path: Path):
    assert mended(tmp_path / "a.json") == (None, [])


@pytest.mark.parametrize("end", [bytes(22), b"PK\5\6" + bytes(16) + b"\1\0"], ids=["no archive", "a comment"])
def test_bytes_that_do_not_end_as_a_bare_archive_have_no_room_and_are_not_sound(end):
    with pytest.raises(ValueError, match="no room"):
        seal("a.pt", bytes(80) + end)
    assert sound("a.pt", bytes(80) + end) is False


def test_the_seal_of_an_object_is_that_of_its_shortest_form_with_sorted_keys():
    digest = hashlib.sha256(b'{"a":[1,2],"b":1}').hexdigest()

    content = seal("a.json", b'{"b": 1, "a": [1, 2]}')

    assert content.decode() == f'{{\n "b": 1,\n "a": [\n  1,\n  2\n ],\n "sha256": "{digest}"\n}}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        seal("a.json", b'{"a": NaN}')


def test_tensors_may_be_described_in_another_order_and_begin_at_a_multiple_of_eight():
    content = seal("a.safetensors", CONTENT["a.safetensors"])
    size = int.from_bytes(content[:8], "little")
    head, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    shortest = json.dumps(head, separators=(",", ":")).encode()

    assert size % 8 == 0
    assert size - len(shortest) < 8
    assert content[8 : 8 + size] == shortest.ljust(size)
    other = json.dumps(dict(reversed(head.items()))).encode()
    assert sound("a.safetensors", len(other).to_bytes(8, "little") + other + body) is True


def test_a_file_of_no_tensors_is_whole_and_can_be_sealed():
    nothing = save({})

    assert (sound("a.safetensors", nothing), sound("a.safetensors", seal("a.safetensors", nothing))) == (None, True)

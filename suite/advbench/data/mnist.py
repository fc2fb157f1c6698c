"""MNIST: 60,000 + 10,000 grey digits of 28 by 28 pixels (LeCun et al. 1998), read from torchvision's folder layout."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from advbench.data.base import Arrays, DataSet, checked, reading
from advbench.data.published import Published
from advbench.spec import BadInput

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
SIZES = {
    f"train-{IMAGES}": 47_040_016,
    f"train-{LABELS}": 60_008,
    f"t10k-{IMAGES}": 7_840_016,
    f"t10k-{LABELS}": 10_008,
}
"""The four files and their official sizes in bytes."""


class Mnist(Published):
    """The official split, from `MNIST/raw` under the data root."""

    name = "mnist"
    about = "60,000 + 10,000 grey 28x28 digits; MNIST/raw under the data root, or --download"

    torchvision: ClassVar[str] = "MNIST"
    """torchvision's class, which also names the folder."""
    sizes: ClassVar[Mapping[str, int]] = SIZES
    md5: ClassVar[Mapping[str, str]] = {
        f"train-{IMAGES}": "6bbc9ace898e44ae57da46a324031adb",
        f"train-{LABELS}": "a25bea736e30d166cdddb491f175f624",
        f"t10k-{IMAGES}": "2646ac647ad5339dbf082846283269ea",
        f"t10k-{LABELS}": "27ae3e4e09519cfbb04c329615203637",
    }
    """Of the unpacked files; torchvision knows those of the archives."""

    def published(self) -> Mapping[str, str | None]:
        return {f"{self.torchvision}/raw/{name}": self.md5.get(name) for name in self.sizes}

    def get(self, root: str) -> None:
        from torchvision import datasets

        # Any: torchvision carries no types.
        kind: Any = getattr(datasets, self.torchvision)
        kind(root, download=True)

    def load(self, root: Path) -> DataSet:
        for path in self.files(root):
            _check_length(path, self.sizes[path.name])  # before the digest: a cut-off file has the clearer message
        self.verify(root)
        raw = root / self.torchvision / "raw"
        return checked(_read(raw, "train"), _read(raw, "t10k"), classes=10)


def _read(raw: Path, split: str) -> Arrays:
    # torchvision's readers and not its MNIST class, which would prefer old .pt copies, files that `files` never saw.
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images, labels = (raw / f"{split}-{kind}" for kind in (IMAGES, LABELS))
    return Arrays(
        read_image_file(str(images)).numpy()[:, None], read_label_file(str(labels)).numpy(), str(images), str(labels)
    )


def _check_length(path: Path, official: int) -> None:
    """An idx file says in its first bytes how long it is: 0, 0, type 8 (bytes), d, and d big-endian lengths."""
    advice = f"the official file has {official:,}); delete it and get it again (advbench run --download)"
    dimensions = 3 if path.name.endswith(IMAGES) else 1
    length = path.stat().st_size
    with reading(path), path.open("rb") as file:
        head = file.read(4 + 4 * dimensions)
    if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
        raise BadInput(f"{path}: not an idx file of {dimensions}-d bytes ({length:,} bytes; {advice}")
    expected = len(head) + math.prod(struct.unpack(f">{dimensions}I", head[4:]))
    if length != expected:
        raise BadInput(f"{path}: {length:,} bytes, but its header says {expected:,} ({advice}")
    if length != official:
        raise BadInput(f"{path}: {length:,} bytes ({advice}")

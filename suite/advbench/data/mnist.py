"""MNIST: 60,000 + 10,000 grey digits of 28 by 28 pixels (LeCun et al. 1998), read from torchvision's folder layout."""

from __future__ import annotations

import math
import struct
from pathlib import Path

from advbench.data.base import Arrays, DataSet, Missing, Source, checked
from advbench.spec import BadInput

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
OFFICIAL = {
    f"train-{IMAGES}": 47_040_016,
    f"train-{LABELS}": 60_008,
    f"t10k-{IMAGES}": 7_840_016,
    f"t10k-{LABELS}": 10_008,
}
"""The four files and their official sizes in bytes."""


class Mnist(Source):
    """The official split, from `MNIST/raw` under the data root; nothing is ever downloaded here."""

    name = "mnist"
    about = "60,000 + 10,000 grey 28x28 digits; MNIST/raw under the data root, as torchvision downloads it"

    def files(self, root: Path) -> list[Path]:
        paths = [root / "MNIST" / "raw" / name for name in OFFICIAL]
        for path in paths:
            if not path.is_file():
                fetch = f"import torchvision; torchvision.datasets.MNIST({str(root)!r}, download=True)"
                raise Missing.at(path, f'get MNIST with: python -c "{fetch}"')
        return paths

    def load(self, root: Path) -> DataSet:
        for path in self.files(root):
            _check_length(path)
        return checked(_read(root, "train"), _read(root, "t10k"), classes=10)


def _read(root: Path, split: str) -> Arrays:
    # torchvision's readers and not its MNIST class, which would prefer old .pt copies, files that `files` never saw.
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images, labels = (root / "MNIST" / "raw" / f"{split}-{kind}" for kind in (IMAGES, LABELS))
    return Arrays(
        read_image_file(str(images)).numpy()[:, None], read_label_file(str(labels)).numpy(), str(images), str(labels)
    )


def _check_length(path: Path) -> None:
    """An idx file says in its first bytes how long it is: 0, 0, type 8 (bytes), d, and d big-endian lengths."""
    official = f"the official file has {OFFICIAL[path.name]:,}"
    dimensions = 3 if path.name.endswith(IMAGES) else 1
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4 + 4 * dimensions)
    if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
        raise BadInput(f"{path}: not an idx file of {dimensions}-d bytes ({length:,} bytes; {official}); get it again")
    expected = len(head) + math.prod(struct.unpack(f">{dimensions}I", head[4:]))
    if length != expected:
        raise BadInput(f"{path}: {length:,} bytes, but its header says {expected:,} ({official}); get it again")

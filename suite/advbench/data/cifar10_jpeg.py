"""CIFAR-10 as JPEG files. JPEG is lossy: results are near, not equal, to CIFAR-10's, and so it has its own name."""

from __future__ import annotations

from pathlib import Path

from advbench.data.folders import Folders, Samples
from advbench.spec import BadInput

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In the official order, which is the alphabetical one."""


class Cifar10Jpeg(Folders):
    """50,000 + 10,000 colour images of 32 by 32 pixels: cifar10-jpeg/{train,test}/<class>/*.jpg."""

    name = "cifar10-jpeg"
    about = "CIFAR-10 as JPEG files: cifar10-jpeg/{train,test}/<class>/*.jpg under the data root"
    how = "put CIFAR-10's images there as JPEG files, in a folder for each class"
    home = "cifar10-jpeg"
    mode = "RGB"

    def listed(self, folder: Path) -> tuple[Samples, Samples, int]:
        for split in self.splits:
            for label in CLASSES:
                if not (folder / split / label).is_dir():
                    raise BadInput(f"{folder / split}: no class folder '{label}'; CIFAR-10 has {', '.join(CLASSES)}")
        return super().listed(folder)

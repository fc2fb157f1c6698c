"""ImageNet, the 1,000 classes of ILSVRC 2012: 1,281,167 + 50,000 images (Russakovsky et al. 2015, arXiv 1409.0575).

The official validation images are the test split here, as everywhere: the labels of the official test are secret.
Training images are cropped as the test images are, so that they can be decoded once; random crops move in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from advbench.data.folders import Folders, Samples
from advbench.spec import BadInput


class ImageNet(Folders):
    """imagenet/{train,val}/<wnid>/*, classes in the order of their wnids, which is everyone's; 200 GB at 224 pixels."""

    name = "imagenet"
    about = "ILSVRC 2012: imagenet/{train,val}/<wnid>/* under the data root, cropped to `size` (224) pixels"
    how = "get ILSVRC 2012 from https://image-net.org and put its images there, in a folder for each wnid"
    home = "imagenet"
    splits = ("train", "val")
    mode = "RGB"
    sized = True
    classes: ClassVar[int] = 1_000

    size: int | None = Field(default=224, ge=1)

    def listed(self, folder: Path) -> tuple[Samples, Samples, int]:
        train, test, found = super().listed(folder)
        if found != self.classes:
            raise BadInput(
                f"{folder}: {found:,} class folders, but ImageNet has {self.classes:,}; "
                'a part of it is an "image-folder" with a path and a size'
            )
        return train, test, found

"""Tiny ImageNet: 100,000 + 10,000 colour images of 64 by 64 pixels in 200 classes (Stanford CS231n, 2015).

The validation images are the test split here, as everywhere: the labels of the official test were never published.
"""

from __future__ import annotations

from pathlib import Path

from advbench.data.base import Missing, reading
from advbench.data.folders import Folders, Samples, samples
from advbench.spec import BadInput


class TinyImageNet(Folders):
    """tiny-imagenet-200 as its archive unpacks; classes in the order of their wnids."""

    name = "tiny-imagenet"
    about = "100,000 + 10,000 colour 64x64 images, 200 classes; tiny-imagenet-200 under the data root"
    how = "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip under the data root"
    home = "tiny-imagenet-200"
    splits = ("train", "val")
    mode = "RGB"

    def files(self, root: Path) -> list[Path]:
        found = super().files(root)
        lists = [self.place(root) / "wnids.txt", self.place(root) / "val" / "val_annotations.txt"]
        for path in lists:
            if not path.is_file():
                raise Missing.at(path, self.how)
        return [*found, lists[0]]

    def listed(self, folder: Path) -> tuple[Samples, Samples, int]:
        wnids = sorted(_text(folder / "wnids.txt").split())
        for wnid in wnids:
            if not (folder / "train" / wnid).is_dir():
                raise BadInput(f"{folder / 'train'}: no class folder '{wnid}', which wnids.txt names; unpack it again")
        train, classes = samples(folder / "train")
        if odd := sorted(set(classes) - set(wnids)):
            raise BadInput(f"{folder / 'train'}: class folder '{odd[0]}' is not in wnids.txt; remove it")
        return train, _annotated(folder / "val", classes), len(classes)


def _annotated(folder: Path, classes: list[str]) -> Samples:
    """Each line of val_annotations.txt: file, wnid and four numbers of a box, between tabs."""
    path = folder / "val_annotations.txt"
    number = {wnid: i for i, wnid in enumerate(classes)}
    found: Samples = []
    for row, line in enumerate(_text(path).splitlines(), 1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in number:
            raise BadInput(f"{path}: line {row}: '{wnid}' is no class of wnids.txt; unpack it again")
        image = folder / "images" / file
        if not image.is_file():
            raise BadInput(f"{image}: not there, though {path.name} names it; unpack it again")
        found.append((str(image), number[wnid]))
    return found


def _text(path: Path) -> str:
    """The content of a list."""
    try:
        with reading(path):
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not UTF-8 text; unpack it again") from None

"""A folder of images: train/<class>/* and test/<class>/*, the classes in alphabetical order."""

from __future__ import annotations

from advbench.data.folders import Folders


class ImageFolder(Folders):
    """Images in torchvision's ImageFolder layout: of one size, or cropped to `size`; grey if the first one is."""

    name = "image-folder"
    about = "a folder under the data root with train/<class>/* and test/<class>/*, of one size or cropped to `size`"
    located = True
    sized = True
    how = "put images there, in a folder for each class"

"""CIFAR-100: 50,000 + 10,000 colour images of 32 by 32 pixels in a hundred classes (Krizhevsky 2009)."""

from __future__ import annotations

from advbench.data.cifar10 import Cifar10


class Cifar100(Cifar10):
    """The official split with the hundred fine labels, from `cifar-100-python` under the data root."""

    name = "cifar100"
    about = "50,000 + 10,000 colour 32x32 images, 100 classes; cifar-100-python under the data root, or --download"

    classes = 100
    torchvision = "CIFAR100"

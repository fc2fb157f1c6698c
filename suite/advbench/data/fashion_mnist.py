"""Fashion-MNIST: 60,000 + 10,000 grey pictures of clothing, 28 by 28 pixels (Xiao et al. 2017, arXiv 1708.07747)."""

from __future__ import annotations

from advbench.data.mnist import Mnist


class FashionMnist(Mnist):
    """The official split in MNIST's own format, from `FashionMNIST/raw` under the data root."""

    name = "fashion-mnist"
    about = "60,000 + 10,000 grey 28x28 pictures of clothing; FashionMNIST/raw under the data root, or --download"

    torchvision = "FashionMNIST"
    # Digests are published for the archives only, which torchvision checks; the unpacked files are known by size.
    md5 = {}

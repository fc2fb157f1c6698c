"""PreActResNet-18, the usual network of CIFAR-10 adversarial training: He et al., ECCV 2016 (arXiv 1603.05027).

Eighteen layers as in He et al., CVPR 2016 (arXiv 1512.03385), table 1, with the stem for small images (3x3, stride 1,
no pooling) and the final BN-ReLU that section 4.1 of the pre-activation paper asks for. Weights start as PyTorch
starts them, as in the published adversarial training code.
"""

from __future__ import annotations

from torch import nn

from advbench.models.base import Normalized, Shape
from advbench.models.preact import network

WIDTHS = (64, 128, 256, 512)


class PreActResNet18(Normalized):
    """Four stages of two pre-activation blocks; 11,172,170 parameters on CIFAR-10. Images of any size."""

    name = "preact-resnet18"
    about = "PreActResNet-18 with the stem for small images, the usual CIFAR-10 network"

    def build(self, shape: Shape, classes: int) -> nn.Module:
        channels = shape[0]
        return network(self.normalize(channels), channels, WIDTHS[0], WIDTHS, 2, classes)

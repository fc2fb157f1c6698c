"""The classifiers of torchvision by their names there: https://docs.pytorch.org/vision/stable/models.html."""

from __future__ import annotations

import re
from types import MethodType
from typing import Any

from torch import nn

from advbench.models.base import Shape
from advbench.models.library import Library, Published

TRANSFORMERS = ("vit_", "swin_", "maxvit_")
"""Cut the image into patches first: that convolution is no stem, and another one would be another network."""
SIDE_HEADS = ("googlenet", "inception_v3")
"""Answer with several heads in training mode unless told not to; a model here has one.

Their published weights want pixels from -1 to 1: torchvision moves its usual ones there (`transform_input`).
"""


class Torchvision(Library):
    """`torchvision:NAME`; the name decides the widths and, for a vision transformer, the size of a patch."""

    name = "torchvision"
    about = "any classifier of torchvision, such as torchvision:resnet50, its stem fitted to small images"

    @classmethod
    def known(cls) -> list[str]:
        from torchvision import models

        return models.list_models(module=models)

    def make(self, shape: Shape, classes: int) -> tuple[nn.Module, bool]:
        from torchvision.models import get_model

        own: dict[str, Any] = {"aux_logits": False, "init_weights": True} if self.arch in SIDE_HEADS else {}
        transformer = self.arch.startswith(TRANSFORMERS)
        if self.arch.startswith("vit_"):
            if shape[1] != shape[2]:
                raise ValueError("it takes square images only")
            own["image_size"] = shape[1]
        if self.arch.startswith("maxvit_"):
            own["input_size"] = shape[1:]
        network: Any = get_model(self.arch, weights=None, num_classes=classes, **own)
        if self.arch.startswith("mnasnet"):
            # Its own loader takes only a dict with torch.save's version in it, and a safetensors file has none.
            usual: Any = nn.Module
            network._load_from_state_dict = MethodType(usual._load_from_state_dict, network)
        return network, transformer

    def download(self) -> Published:
        from torchvision.models import get_model_weights

        entry: Any = get_model_weights(self.arch)["DEFAULT"]
        # weights_only: torch's loader for tensors and nothing else, because nothing here is ever unpickled.
        weights = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
        recipe = entry.transforms()
        kept = {_today(k): v for k, v in weights.items() if not k.startswith(("aux1.", "aux2.", "AuxLogits."))}
        if self.arch in SIDE_HEADS:
            return Published(kept, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        return Published(kept, tuple(recipe.mean), tuple(recipe.std))


def _today(name: str) -> str:
    """What the network calls a tensor whose published file, of a densenet or a vision transformer, is older than it."""
    name = re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", name)
    return name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")

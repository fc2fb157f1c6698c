"""A few images through a network: where they get stuck, or what is wrong with the answer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Unfit(Exception):
    """A network does not take these images or does not answer with logits; the message says where and how."""


def answer(network: nn.Module, images: Tensor, classes: int) -> Tensor:
    """The logits (N, classes) of `network` on `images` (N, C, H, W). Raises Unfit."""
    reached: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda m, _, name=name: reached.append(f"{name} ({type(m).__name__})"))
        for name, module in network.named_modules()
        if name and not any(module.children())
    ]
    try:
        logits: Any = network(images)
    except Exception as error:  # whatever a layer raises at a size it cannot take
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise Unfit(f"at {reached[-1] if reached else 'the start'}: {said}") from error
    finally:
        for hook in hooks:
            hook.remove()
    wanted = (len(images), classes)
    if not isinstance(logits, Tensor) or logits.shape != wanted:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise Unfit(f"it answers with {got}, not with logits of {wanted}")
    if logits.device != images.device:
        raise Unfit(f"it answers on {logits.device}, not on {images.device}")
    if not logits.isfinite().all():
        raise Unfit("its logits are not finite")
    return logits

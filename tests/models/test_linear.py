from __future__ import annotations

import torch

from advbench.models.linear import Linear


def test_logits_are_affine_in_the_pixels() -> None:
    torch.manual_seed(0)
    network = Linear().build((2, 3, 4), 5)
    weight, bias = network.parameters()
    assert weight.shape == (5, 24)
    x = torch.rand(6, 2, 3, 4)
    torch.testing.assert_close(network(x), torch.einsum("kp,np->nk", weight, x.reshape(6, 24)) + bias)

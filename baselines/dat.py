"""Distributed adversarial training: every process attacks its part of a large batch, and the gradients are averaged.

Zhang et al., "Distributed Adversarial Training to Robustify Deep Neural Networks at Scale", UAI 2022,
arXiv 2206.06257. M processes minimise (1/M) sum_i f_i, each on its own examples:

    f_i = lambda * E[cross-entropy(f(x), y)] + E[max_{||d|| <= eps} phi(f(x + d))]

phi is the cross-entropy with the label or, for an unlabelled image, with what the model says of the clean image. The
inner maximum is found by each process alone; the gradients are then averaged, here through DistributedDataParallel,
and sent as they are, in bf16 or in 8 bits (QSGD); large batches are stepped through by LAMB, layer by layer.

Where the authors' code differs from their paper: it never quantises (a constant turns it off, and its quantiser is
biased on today's torch), its DAT-FGSM leaves the clean loss out (`clean_weight = 0` here), its LAMB holds ||theta|| at
10 at the most and the random start of its DAT-PGD may leave the pixel box. Its unlabelled images bring pseudo-labels of
another, standard-trained network; here the trained network itself says them.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import one_hot

from advbench.attacks.pgd import ascend
from advbench.defense import Defense, TrainState, batch_norm
from advbench.exchange import Clock, Compression, Exchange
from advbench.parallel import synchronise
from advbench.recipe import Training
from advbench.seeds import Stream


class DAT(Defense):
    """DAT-PGD and DAT-FGSM over several processes, with LAMB and quantised gradients (Zhang et al. 2022)."""

    name = "dat"
    paper = "Zhang et al., UAI 2022, arXiv 2206.06257"

    processes: int = Field(default=1, ge=1, le=4096)
    """That share each batch of the task, M (the paper on ImageNet: 6 machines)."""
    attack: Literal["pgd", "fgsm"] = "pgd"
    """fgsm: one step from a random start (Wong et al. 2020)."""
    steps: int = Field(default=10, ge=1)
    """Ascent steps of pgd (the paper: 10 on CIFAR-10, 4 on ImageNet)."""
    step_size: float | None = Field(default=None, gt=0)
    """As a share of eps. By default 0.25 for pgd (the paper's 2/255 at 8/255) and 1.25 for fgsm."""
    attack_bn: Literal["train", "eval"] = "eval"
    """Batch norm while crafting (the authors' code: eval for DAT-PGD, train for DAT-FGSM)."""
    clean_weight: float = Field(default=1, ge=0)
    """lambda: the clean loss beside the adversarial one (the authors' code: 1 for DAT-PGD, 0 for DAT-FGSM)."""
    gradients: Compression = "none"
    """How they travel. int8: 8 bits an entry, rounded without bias in buckets of 512 (the paper: 8 bits, a whole layer
    a bucket, where the rounding's variance can exceed the signal)."""
    sync_bn: bool = False
    """Batch norm's statistics over the whole batch. Otherwise each process has its own, as in the authors' code, and
    the first one's running statistics are kept: a training of several processes that goes on from a checkpoint gives
    them to all, and does not end in the weights of one that was never stopped."""
    layerwise: Literal["lamb", "lars", "none"] = "lamb"
    """Each layer's step has the length lr * ||theta|| with lamb (the paper: betas 0.9 and 0.999, eps 1e-6, no bias
    correction, lr 0.01; the authors' code holds ||theta|| at 10 at the most, which is left out here). With lars what a
    step adds to the momentum is at most so long, and the step itself at most 1 / (1 - momentum) times that. For a
    layer that is all zero the factor ||theta|| is left out. none: the task's own optimizer. Both come from timm."""
    unlabelled: Literal["none", "pseudo", "agree"] = "none"
    """What an image of the task's unlabelled pool should stay under attack. pseudo: the class that the model gives the
    clean image; agree: the clean image's probabilities, a Kullback-Leibler term."""
    unlabelled_ratio: float = Field(default=1, gt=0, le=16)
    """Unlabelled images in a step, as a share of the labelled ones."""

    def workers(self) -> int:
        return self.processes

    def needs(self) -> tuple[Literal["unlabelled"], ...]:
        return () if self.unlabelled == "none" else ("unlabelled",)

    def passes(self) -> tuple[float, float]:
        ascents = self.steps if self.attack == "pgd" else 1
        further = 0 if self.unlabelled == "none" else self.unlabelled_ratio
        both = (ascents + 1) * (1 + further) + (self.clean_weight > 0)
        return both + further, both

    def optimizer(self, model: nn.Module, training: Training) -> torch.optim.Optimizer:
        if self.layerwise == "none":
            return super().optimizer(model, training)
        from timm.optim import Lamb, Lars  # a second to import, for those who ask for it

        shared: dict[str, Any] = {"lr": training.lr, "weight_decay": training.weight_decay, "always_adapt": True}
        if self.layerwise == "lars":
            shared |= {"momentum": training.momentum, "trust_coeff": 1.0}
            return Lars(model.parameters(), **shared)
        # timm would clip the gradients to norm 1; the paper does not, and the task has a field for it.
        return Lamb(model.parameters(), bias_correction=False, max_grad_norm=float("inf"), **shared)

    def prepare(self, state: TrainState) -> None:
        if state.group.world == 1:
            return
        if self.sync_bn:
            synchronise(state.model)
        state.exchange = Exchange(state.model, self.gradients)

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        terms = self._terms(state, x, y)
        return torch.stack([weight * state.cross_entropy(state.model(images), y) for images, y, weight in terms]).sum()

    def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        """One update; every term has its own backward pass, and the gradients leave with the last one."""
        state.optimizer.zero_grad(set_to_none=True)
        exchange, clock = state.exchange, Clock(x.device)
        if exchange is not None:
            exchange.begin(state.noise.generator, state.group.rank)
        terms = self._terms(state, x, y)
        attacked = clock.seconds()
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for left, (images, target, weight) in zip(range(len(terms) - 1, -1, -1), terms, strict=True):
            net = state.model if exchange is None else exchange.model
            with nullcontext() if exchange is None or not left else exchange.model.no_sync():
                loss = weight * state.cross_entropy(net(images), target)
                loss.backward()
            total += loss.detach()
        if exchange is not None:
            exchange.end()
            state.report["bytes_sent"] = float(exchange.sent)
        state.optimizer.step()
        whole = clock.seconds()
        waited = 0.0 if exchange is None else exchange.waited()
        state.report["attack_seconds"] = attacked
        state.report["compute_seconds"] = whole - attacked - waited
        state.report["communication_seconds"] = waited
        return total / state.weight  # a mean over the part, which the history weighs again

    def _terms(self, state: TrainState, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor, float]]:
        """Images, targets and the weight of their mean loss in the mean over processes: clean, then adversarial."""
        terms = [(x, y, self.clean_weight * state.weight)] if self.clean_weight else []
        threat, pgd = state.threat, self.attack == "pgd"
        images, target, weight, start = x, y, state.weight, threat.random_start(x, state.noise)
        if self.unlabelled != "none":
            more, noise, weight = self._drawn(state, len(x))
            images, target = torch.cat([x, more]), self._targets(state, y, more)
            start = torch.cat([start, threat.random_start(more, noise)])
        share = self.step_size or (0.25 if pgd else 1.25)
        with batch_norm(state.model, self.attack_bn):
            steps = self.steps if pgd else 1
            x_adv = ascend(state.model, images, target, threat, start=start, steps=steps, step_size=share * threat.eps)
        return [*terms, (x_adv, target, weight)]

    def _drawn(self, state: TrainState, labelled: int) -> tuple[Tensor, Stream, float]:
        """This process's part of the step's unlabelled images, its noise, and what its mean over both kinds weighs."""
        pool, group, noise = state.unlabelled, state.group, Stream(state.noise.generator)
        assert pool is not None
        together = state.noise.size or labelled
        count = max(group.world, round(together * self.unlabelled_ratio))
        # All processes draw for all of them, so that no two take the same ones by having equal generators.
        rows = torch.randint(len(pool), (count,), generator=noise.generator, device=pool.device)[group.rows(count)]
        noise.share(group.rank, group.world, group.rows(count), count)
        return pool.pixels(rows), noise, (labelled + len(rows)) * group.world / (together + count)

    def _targets(self, state: TrainState, y: Tensor, unlabelled: Tensor) -> Tensor:
        with batch_norm(state.model, "eval"), torch.no_grad():
            logits = state.model(unlabelled)
        if self.unlabelled == "pseudo":
            return torch.cat([y, logits.argmax(1)])
        return torch.cat([one_hot(y, logits.shape[1]).to(logits.dtype), logits.softmax(1)])

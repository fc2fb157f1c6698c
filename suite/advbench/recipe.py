"""What `[training]` may say: the budget that every defense of a task gets, and the augmentations."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from advbench.spec import Spec
from advbench.sweeps import first


def named(entries: Any) -> Any:
    """A list in which a bare name stands for a table that holds nothing else."""
    if not isinstance(entries, list):
        return entries
    items: list[Any] = entries
    return tuple({"name": entry} if isinstance(entry, str) else entry for entry in items)


class CropFlip(Spec):
    """Pad, crop at random, mirror every second image: He et al., CVPR 2016 (arXiv 1512.03385), section 4.2."""

    name: Literal["crop-flip"]
    pad: int = Field(default=4, ge=1)
    """Pixels on each side (the paper: 4)."""


class Cutout(Spec):
    """A black square at a random place: DeVries and Taylor 2017 (arXiv 1708.04552)."""

    name: Literal["cutout"]
    size: int = Field(default=16, ge=1)
    """Side in pixels, cut at the border (the paper: 16 on CIFAR-10, 8 on CIFAR-100, 20 on SVHN)."""


class RandAugment(Spec):
    """Operations drawn anew for every image: Cubuk et al., NeurIPS 2020 (arXiv 1909.13719)."""

    name: Literal["randaugment"]
    ops: int = Field(default=2, ge=1)
    """Operations an image (the paper's N: 1 to 3)."""
    magnitude: int = Field(default=9, ge=0, le=30)
    """Their strength of 30 (the paper's M)."""


Augmentation = Annotated[CropFlip | Cutout | RandAugment, Field(discriminator="name")]


class Training(Spec):
    """The budget that every defense of the task gets."""

    epochs: int = Field(ge=1)
    seeds: Annotated[tuple[int, ...], BeforeValidator(first)] = Field(default=(0, 1, 2), min_length=1)
    """One job each; a number means that many: 0, 1, 2, ..."""
    batch: int = Field(default=128, ge=2)
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    """Peak learning rate."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["cyclic", "piecewise", "cosine", "constant"] = "cyclic"
    """Per step. cyclic: 0 to lr to 0 in straight lines (fast AT); piecewise: times `decay` at each milestone."""
    peak: float = Field(default=0.5, gt=0, lt=1)
    """cyclic: the share of training at which lr is reached."""
    milestones: tuple[float, ...] = (0.5, 0.75)
    """piecewise: shares of training (Rice et al. 2020 drop at 100 and 150 of 200 epochs)."""
    decay: float = Field(default=0.1, gt=0, le=1)
    eps_ramp: float = Field(default=0, ge=0)
    """Epochs over which the training eps grows from 0 in a straight line."""
    warmup: float = Field(default=0, ge=0)
    """Epochs over which the schedule is scaled from 0 to 1 in a straight line (Goyal et al. 2017: 5)."""
    augment: tuple[Augmentation, ...] = ()
    """In this order, on the device: "crop-flip", "cutout", "randaugment", or a table with the name and its fields."""
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    """Share of the target that all classes split evenly, in the training loss only (Pang et al. 2021: 0.1)."""
    clip_norm: float = Field(default=0, ge=0)
    """Gradients of a larger L2 norm over all weights are scaled down to it; 0: never."""
    average: float = Field(default=0, ge=0, lt=1)
    """Decay a step of the weights' moving average, which is then what training leaves; 0: none (Rebuffi et al. 2021:
    0.995). Batch norm's statistics are estimated again for it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of training passes. auto: bf16 where the device is fast at it; weights, iterates and losses stay fp32, and what
    judges is fp32. The record says what it was."""
    compile: Literal["auto", "off", "on"] = "auto"
    """torch.compile of training passes. auto: on CUDA, when the job is long enough to pay for it."""
    stop: Literal["collapse"] | None = None
    """collapse: end training when an epoch is in catastrophic overfitting, and keep the last healthy weights, as
    watch.py tells the two; None: never."""
    checkpoint_minutes: float = Field(default=5, gt=0)
    """A checkpoint is written after every epoch, and within one at least this often."""

    @model_validator(mode="after")
    def _ramp(self) -> Self:
        for name, end in (("eps_ramp", self.eps_ramp), ("warmup", self.warmup)):
            if end >= self.epochs:
                raise ValueError(f"{name} should end before training does, not after {end:g} epochs")
        return self

    @field_validator("augment", mode="before")
    @classmethod
    def _augmentations(cls, augment: Any) -> Any:
        return named([augment] if isinstance(augment, str) else augment)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError(f"seeds should be distinct and not negative, not {list(seeds)}")
        return seeds

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if sorted(milestones) != list(milestones) or not all(0 < m < 1 for m in milestones):
            raise ValueError(f"milestones should be rising shares of training between 0 and 1, not {list(milestones)}")
        return milestones

"""A configuration, an image and a state that a test can afford."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastgan_engine.config.single import Single, SingleConfig
from fastgan_engine.pipelines.flower import draw_flower
from fastgan_engine.single.pyramid import build_pyramid, stage_sizes
from fastgan_engine.single.resize import Size
from fastgan_engine.single.state import SingleState, begin_stage, build_state

CPU = torch.device("cpu")


def small_single(**values: Any) -> Single:
    return Single(
        **{"max_size": 40, "min_size": 15, "stages": 4, "filters": 4, "iterations": 5, "train_depth": 2} | values
    )


def small_config(**values: Any) -> SingleConfig:
    quiet = {"tick": 2, "sample_count": 2, "sample_every": 0, "checkpoint_every": 0, "tensorboard": False}
    return SingleConfig.model_validate(
        {"single": small_single(**values).model_dump(), "engine": {"device": "cpu"}, "log": quiet}
    )


def picture(width: int = 40, height: int = 28) -> Image.Image:
    flower = Image.fromarray(draw_flower(64, np.random.default_rng(3)))
    return flower.resize((width, height), Image.Resampling.BICUBIC)


def begun(single: Single, stage: int, dtype: torch.dtype) -> tuple[SingleState, list[Tensor], list[Size]]:
    """A state at the first iteration of a stage, its weights large enough for every loss to matter."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        image = picture()
        sizes = stage_sizes((image.height, image.width), single)
        reals = [real.to(dtype) for real in build_pyramid(image, sizes, CPU)]
        state = build_state(single, CPU)
        with torch.no_grad():
            for network in state.modules():
                for weight in network.parameters():
                    weight.mul_(8)
        for state.stage in range(stage + 1):
            begin_stage(state, single, reals, sizes)
    finally:
        torch.set_default_dtype(before)
    return state, reals, sizes[: stage + 1]

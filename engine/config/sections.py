"""Every setting of a run, once: its type, its default, its limits and what it means.

A default changes here and nowhere else (those of the data path in `pipelines.defaults`, which cannot import this
module; those of training on one image in `config.single`). Profiles (TOML) hold differences to these values.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, field_validator, model_validator

from fastgan_engine.evaluation import defaults as evaluation
from fastgan_engine.pipelines import defaults

AUGMENT_POLICIES = ("color", "translation", "cutout")

# TOML has no null: the word "none" unsets an optional setting in a file and on the command line.
NONE = "none"


def none_word(value: Any) -> Any:
    return None if isinstance(value, str) and value == NONE else value


def check_path(value: Path | None) -> Path | None:
    if value is not None:
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise ValueError("the path is not valid Unicode, so it cannot be saved with the run; rename it") from None
    return value


def check_colour(value: str) -> str:
    from fastgan_engine.pipelines.fit import parse_colour

    try:
        parse_colour(value)
    except ValueError:
        raise ValueError("expected a colour such as white or #fff8e0") from None
    return value


OptionalCount = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(none_word)]
OptionalGib = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(none_word)]
OptionalPath = Annotated[Annotated[Path, Strict(False)] | None, BeforeValidator(none_word)]


class Section(BaseModel):
    """One table of the configuration: immutable, no unknown keys, no silent type conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Section):
    """Where the images come from and how they become batches."""

    path: OptionalPath = Field(default=None, description="folder (searched recursively) or zip file of training images")
    fit: defaults.Fit = Field(
        default=defaults.FIT,
        description="how an image becomes square: squash ignores the aspect ratio, crop keeps the centre, "
        "pad adds the background",
    )
    background: str = Field(
        default=defaults.BACKGROUND,
        description="colour behind transparent pixels and padding: a CSS colour name or #rrggbb",
    )
    encoding: defaults.Encoding = Field(
        default=defaults.ENCODING,
        description="how images are packed that are not JPEG files of the right size already: lossless is PNG; jpeg "
        "(quality 95, RGB only) is for large sets that are streamed: smaller, and decoded on the GPU",
    )
    flip: bool = Field(default=defaults.FLIP, description="mirror each image left-right with probability 0.5")
    loader: Literal["auto", "resident", "dali", "pillow"] = Field(
        default="auto",
        description="resident: the whole set decoded once, on the device; dali, pillow: streamed, by that decoder; "
        "auto: resident if it fits resident_gib, else decoded in host memory if it fits host_gib, else streamed",
    )
    resident_gib: float = Field(default=0.5, ge=0, description="largest decoded set that auto keeps on the device, GiB")
    host_gib: float = Field(default=4.0, ge=0, description="largest decoded set that auto keeps in host memory, GiB")
    workers: int = Field(default=defaults.WORKERS, ge=1, description="CPU threads that decode images")
    prefetch: int = Field(default=defaults.PREFETCH, ge=1, description="batches prepared ahead of the training step")
    strict: bool = Field(
        default=False, description="stop at the first unreadable file instead of skipping it with a warning"
    )
    cache_dir: OptionalPath = Field(
        default=None, description="where prepared images are kept; none: a folder of the user's cache"
    )

    _path_is_unicode = field_validator("path", "cache_dir")(check_path)
    _background_is_a_colour = field_validator("background")(check_colour)


class Model(Section):
    """The generator and the discriminator."""

    im_size: Literal[64, 128, 256, 512, 1024] = Field(
        default=defaults.IM_SIZE,  # type: ignore[arg-type]
        description="side of the generated images, pixels",
    )
    nz: int = Field(default=256, ge=1, description="length of the latent vector")
    ngf: int = Field(default=64, ge=8, multiple_of=8, description="width of the generator: channels at 128 x 128")
    ndf: int = Field(default=64, ge=8, multiple_of=8, description="width of the discriminator: channels at 128 x 128")
    nc: Literal[1, 3, 4] = Field(
        default=defaults.CHANNELS,  # type: ignore[arg-type]
        description="image channels: 1 grey, 3 RGB, 4 RGBA",
    )
    skip: bool = Field(default=True, description="skip-layer excitation in both networks (the paper's ablation: skip)")
    decode: bool = Field(default=True, description="the discriminator's decoders (the paper's ablation: decode)")
    tanh: Literal["auto", "always", "never"] = Field(
        default="auto", description="bound the generator's outputs to [-1, 1]: auto only at 1024, as released"
    )


class Loss(Section):
    """What the networks are trained on beside the hinge loss."""

    self_supervision: Literal["reconstruction", "rotation", "contrastive", "none"] = Field(
        default="reconstruction",
        description="what D learns from the reals beside the hinge: reconstruction, by its decoders (model.decode); "
        "rotation: which quarter turn; contrastive: which two views are of one image (the paper's table 7); "
        "with these two it has no decoders",
    )
    reconstruction: Literal["lpips-vgg", "lpips-squeeze", "l1", "none"] = Field(
        default="lpips-vgg", description="distance between the decoders' outputs and the real images"
    )
    augment: str = Field(
        default="color,translation",
        description="DiffAugment policy: a comma list of color, translation, cutout; empty for none",
    )
    weights_dir: OptionalPath = Field(
        default=None, description="folder searched for LPIPS backbone weights before the torch cache and a download"
    )

    _path_is_unicode = field_validator("weights_dir")(check_path)

    @field_validator("augment")
    @classmethod
    def _known_policies(cls, value: str) -> str:
        policies = [part.strip() for part in value.split(",")] if value.strip() else []
        unknown = [part for part in policies if part not in AUGMENT_POLICIES]
        if unknown or len(set(policies)) < len(policies):
            problem = f"unknown policy {unknown[0]!r}" if unknown else "a policy is named twice"
            raise ValueError(f"{problem}; expected a comma list of {', '.join(AUGMENT_POLICIES)}, each at most once")
        return ",".join(policies)


class Train(Section):
    """The optimization: how long, how much at once, how fast."""

    steps: int = Field(default=50_000, ge=1, description="iterations to train, each one D step and one G step")
    batch: int = Field(default=8, ge=1, description="images a step")
    micro_batch: OptionalCount = Field(
        default=None,
        description="images at once on the device; must divide batch; none: the whole batch "
        "(smaller needs less memory, but batch norm then sees fewer images)",
    )
    lr: float = Field(default=2e-4, gt=0, description="Adam's learning rate, both networks")
    beta1: float = Field(default=0.5, ge=0, lt=1, description="Adam's decay of the first moment")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="Adam's decay of the second moment")
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="decay a step of the averaged generator")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of every random number of the run")

    @property
    def accumulation(self) -> int:
        """Micro-batches a step."""
        return self.batch // (self.micro_batch or self.batch)

    @model_validator(mode="after")
    def _micro_batch_divides_batch(self) -> "Train":
        if self.micro_batch is not None and self.batch % self.micro_batch:
            divisors = [n for n in range(1, self.batch + 1) if self.batch % n == 0]
            raise ValueError(
                f"train.micro_batch = {self.micro_batch} does not divide train.batch = {self.batch}; "
                f"take one of {', '.join(map(str, divisors))}"
            )
        return self


class Precision(Section):
    """Number formats and memory layout."""

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="compute precision: auto takes fp16 on compute capability 7.x, bf16 from 8.0 "
        "and on CPUs with AMX, else fp32",
    )
    channels_last: bool = Field(
        default=True,
        description="channels-last memory format under engine.step = compile; the engine's own step knows no other",
    )
    tf32: bool = Field(default=True, description="allow TF32 in fp32 matrix products and convolutions (from sm_80)")


class Engine(Section):
    """What executes the step."""

    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:N; auto takes CUDA where it runs",
    )
    step: Literal["auto", "graph", "eager", "compile"] = Field(
        default="auto",
        description="how one iteration is launched: as one CUDA graph, or operation by operation; "
        "compile: plain PyTorch under AMP and torch.compile, to compare with",
    )
    transposed_from: OptionalCount = Field(
        default=None,
        description="pixels of a batch's maps from which up-convolutions run in their transposed form; "
        "none: the kernels' own rule; `profiles tune` measures it",
    )
    kernels: Literal["auto", "triton", "reference"] = Field(
        default="auto", description="fused Triton kernels or plain PyTorch; auto takes Triton where it runs"
    )
    optimizer: Literal["adam", "apex"] = Field(
        default="adam", description="torch.optim.Adam, or FusedAdam of NVIDIA's apex where it is installed"
    )
    recompute: bool = Field(
        default=False,
        description="run G's forward again in the G step instead of keeping its graph through the D step: "
        "less memory, the same result",
    )
    expandable_segments: bool = Field(
        default=False,
        description="let PyTorch's allocator grow its segments, which wastes less memory; not on Windows; "
        "an own PYTORCH_ALLOC_CONF comes first",
    )
    budget_gib: OptionalGib = Field(
        default=None,
        description="GPU memory that a run may take by plan, its context included, GiB; none: what is free on the card",
    )
    threads: OptionalCount = Field(default=None, description="PyTorch's CPU threads; none: PyTorch decides")


class Log(Section):
    """What a run writes and shows, and how often."""

    tick: int = Field(
        default=20, ge=1, description="steps between status lines; the only time statistics leave the device"
    )
    sample_every: int = Field(default=1_000, ge=0, description="steps between sample grids; 0: only at the end")
    sample_count: int = Field(default=16, ge=1, description="images in a sample grid")
    checkpoint_every: int = Field(default=2_000, ge=0, description="steps between checkpoints; 0: only at the end")
    keep: int = Field(default=2, ge=1, description="checkpoints kept: the last N")
    tensorboard: bool = Field(default=True, description="write TensorBoard event files")
    report: bool = Field(
        default=True, description="write report.html, the run as a page, with each sample grid and at the end"
    )
    screen: Literal["auto", "live", "plain", "quiet"] = Field(
        default="auto", description="live panel, plain lines or nothing; auto takes the panel in a terminal"
    )


class Eval(Section):
    """Evaluations of the averaged generator during training, and the alarm for samples that look alike."""

    every: int = Field(default=0, ge=0, description="steps between evaluations; 0: never")
    metrics: str = Field(
        default=evaluation.AUTO,
        description=f"comma list of {', '.join(evaluation.NAMES)}; the first decides which step is best; "
        "auto: fid where torch-fidelity and its weights are there, else swd, which needs none",
    )
    count: int = Field(default=evaluation.COUNT, ge=2, description="samples of an evaluation; the paper took 5,000")
    patience: int = Field(
        default=0, ge=0, description="the run stops after so many evaluations without improvement; 0: never"
    )
    keep_best: bool = Field(default=True, description="keep the generator of the best evaluation as best.safetensors")
    alarm: float = Field(
        default=evaluation.ALARM,
        ge=0,
        le=1,
        description="warn where samples differ from each other by less than this share of what the training images "
        "do, measured with each sample grid and evaluation; 0: never",
    )

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, value: str) -> str:
        return value if value == evaluation.AUTO else ",".join(evaluation.parse_metrics(value))

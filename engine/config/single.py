"""The settings of training on one image: a configuration of its own that shares sections, layers and TOML."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fastgan_engine.config.schema import Root
from fastgan_engine.config.sections import (
    Engine,
    Log,
    OptionalPath,
    Precision,
    Section,
    check_colour,
    check_path,
    none_word,
)
from fastgan_engine.pipelines import defaults

Mode = Literal["generate", "retarget", "animate", "harmonize", "edit"]

USED = {"device", "step", "threads"}  # of the section engine
SMALLEST = 11  # the discriminator's receptive field, pixels
MIN_SIZES: dict[Mode, int] = {"animate": 20, "harmonize": 120}
MIN_SIZE = 25
STAGES: dict[Mode, int] = {"harmonize": 3, "edit": 3}
DEFAULT_STAGES = 6

OptionalStages = Annotated[Annotated[int, Field(ge=3)] | None, BeforeValidator(none_word)]
OptionalSize = Annotated[Annotated[int, Field(ge=SMALLEST)] | None, BeforeValidator(none_word)]


class Single(Section):
    """What is trained on the image, and how: Hinz et al., WACV 2021, with the released values."""

    image: OptionalPath = Field(default=None, description="the training image")
    background: str = Field(
        default=defaults.BACKGROUND, description="colour behind transparent pixels: a CSS colour name or #rrggbb"
    )
    mode: Mode = Field(default="generate", description="what the run is trained for")
    stages: OptionalStages = Field(
        default=None, description="stages of the pyramid; none: 6, and 3 for harmonize and edit"
    )
    train_depth: int = Field(default=3, ge=1, description="stages trained together, the top one and those below it")
    lr_scale: float = Field(
        default=0.1, gt=0, le=1, description="learning rate of a stage, as a factor on that of the stage above it"
    )
    max_size: int = Field(default=250, ge=SMALLEST, description="longest side of the trained image, pixels")
    min_size: OptionalSize = Field(
        default=None,
        description="shortest side of the coarsest stage, pixels; none: 25, 20 for animate, 120 for harmonize",
    )
    iterations: int = Field(default=2_000, ge=1, description="iterations a stage, each three D steps and three G steps")
    lr: float = Field(default=5e-4, gt=0, description="Adam's learning rate; a tenth of it from 80 % of a stage")
    beta1: float = Field(default=0.5, ge=0, lt=1, description="Adam's decay of the first moment")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="Adam's decay of the second moment")
    filters: int = Field(default=64, ge=1, description="width of both networks, channels")
    batch_norm: Literal["auto", "on", "off"] = Field(
        default="auto", description="batch norm in the generator; auto: on for harmonize"
    )
    noise: float = Field(default=0.1, ge=0, description="noise of a stage, as a factor on the error it has to mend")
    reconstruction: float = Field(
        default=10.0, ge=0, description="weight of the reconstruction in the generator's loss"
    )
    penalty: float = Field(default=0.1, ge=0, description="weight of the gradient penalty in the discriminator's loss")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of every random number of the run")

    _path_is_unicode = field_validator("image")(check_path)
    _background_is_a_colour = field_validator("background")(check_colour)

    @property
    def stage_count(self) -> int:
        return self.stages or STAGES.get(self.mode, DEFAULT_STAGES)

    @property
    def coarsest(self) -> int:
        """Shortest side of the coarsest stage, pixels."""
        return self.min_size or MIN_SIZES.get(self.mode, MIN_SIZE)

    @property
    def normalises(self) -> bool:
        return self.batch_norm == "on" or (self.batch_norm == "auto" and self.mode == "harmonize")

    @property
    def varies_borders(self) -> bool:
        """Whether maps are made larger than the stage, with noise there, in place of zero padding."""
        return self.mode in ("generate", "animate")

    @property
    def total(self) -> int:
        """Iterations of all stages."""
        return self.stage_count * self.iterations


class SingleConfig(Root):
    """The whole configuration of a run on one image."""

    single: Single = Field(default_factory=Single)
    precision: Precision = Field(default_factory=Precision)
    engine: Engine = Field(default_factory=Engine)
    log: Log = Field(default_factory=Log)

    @model_validator(mode="after")
    def _only_what_is_offered(self) -> "SingleConfig":
        if self.engine.step == "compile":
            raise ValueError('engine.step = "compile" is not offered for one image; take "auto", "graph" or "eager"')
        return self

    def warnings(self) -> list[str]:
        found = []
        if self.single.train_depth > self.single.stage_count:
            found.append(
                f"single.train_depth = {self.single.train_depth} is more than there are stages: all train together"
            )
        if self.precision.dtype == "fp16":
            found.append('precision.dtype = "fp16": one image is trained in fp32, without a loss scaler')
        if not self.precision.channels_last:
            found.append("precision.channels_last has no effect: one image is always trained in channels-last")
        ignored = [name for name in self.engine.model_fields_set - USED if not self._is_default(name)]
        found += [f"engine.{name} has no effect on training on one image" for name in sorted(ignored)]
        return found

    def _is_default(self, name: str) -> bool:
        return bool(getattr(self.engine, name) == type(self.engine).model_fields[name].default)

"""A whole configuration: its sections, and what holds between them."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from fastgan_engine.config.sections import Data, Engine, Eval, Log, Loss, Model, Precision, Section, Train


class Root(Section):
    """A whole configuration, of sections. Immutable; build it with `resolve` or `resolve_as`."""

    def warnings(self) -> list[str]:
        """Settings that are allowed but have no effect or are likely a mistake, one line each."""
        return []

    def values(self) -> dict[str, Any]:
        """Every setting by its dotted key, in the order of the schema."""
        return {key: getattr(getattr(self, section), name) for key, section, name in _split(settings(type(self)))}

    def to_toml(self, sources: Mapping[str, str] | None = None) -> str:
        """The configuration as commented TOML that `resolve(config_file=...)` reads back to an equal one.

        sources: dotted key -> where the value came from, noted beside each value that is not the default.
        """
        from fastgan_engine.config.toml import emit  # here, because it reads this module

        return emit(self, sources or {})


class Config(Root):
    """The whole configuration of a run."""

    data: Data = Field(default_factory=Data)
    model: Model = Field(default_factory=Model)
    loss: Loss = Field(default_factory=Loss)
    train: Train = Field(default_factory=Train)
    precision: Precision = Field(default_factory=Precision)
    engine: Engine = Field(default_factory=Engine)
    log: Log = Field(default_factory=Log)
    eval: Eval = Field(default_factory=Eval)

    @model_validator(mode="after")
    def _apex_needs_cuda(self) -> "Config":
        if self.engine.optimizer == "apex" and self.engine.device == "cpu":
            raise ValueError('engine.optimizer = "apex" needs CUDA, but engine.device = "cpu"; take "adam"')
        return self

    @model_validator(mode="after")
    def _contrast_needs_others(self) -> "Config":
        images = self.train.batch // self.train.accumulation
        if self.loss.self_supervision == "contrastive" and images < 2:
            raise ValueError(
                f'loss.self_supervision = "contrastive" tells images apart and needs two at once or more, got '
                f"{images}; raise train.batch or train.micro_batch"
            )
        return self

    @model_validator(mode="after")
    def _compile_takes_whole_batches(self) -> "Config":
        if self.engine.step == "compile" and self.train.accumulation > 1:
            raise ValueError(
                f'engine.step = "compile" takes the whole batch at once, but train.micro_batch = '
                f'{self.train.micro_batch}; set it to "none", or take engine.step = "auto"'
            )
        return self

    @property
    def decodes(self) -> bool:
        """Whether D has decoders."""
        return self.model.decode and self.loss.self_supervision == "reconstruction"

    @property
    def channels_last(self) -> bool:
        """Whether networks lie in channels-last memory format: the engine's own step knows no other."""
        return self.precision.channels_last or self.engine.step != "compile"

    def warnings(self) -> list[str]:
        trains_decoders = self.loss.reconstruction != "none"
        found = []
        if self.decodes and not trains_decoders:
            found.append('model.decode is on but loss.reconstruction = "none": the decoders are not trained')
        if trains_decoders and not self.model.decode and self.loss.self_supervision == "reconstruction":
            found.append(f'loss.reconstruction = "{self.loss.reconstruction}" has no effect: model.decode is off')
        if self.precision.dtype == "fp16" and self.engine.device == "cpu":
            found.append('precision.dtype = "fp16" is slow on a CPU; "auto" takes the fastest that runs')
        if self.channels_last and not self.precision.channels_last:
            found.append(
                f'precision.channels_last = false has no effect with engine.step = "{self.engine.step}", which always '
                f'trains in channels-last; it is for engine.step = "compile"'
            )
        if self.loss.self_supervision == "contrastive" and not self.loss.augment:
            found.append('loss.self_supervision = "contrastive" learns nothing without loss.augment: views are equal')
        if self.eval.patience and not self.eval.every:
            found.append("eval.patience has no effect: eval.every is 0, so that nothing is evaluated")
        return found


def sections(root: type[Root] = Config) -> dict[str, type[Section]]:
    """Section name -> its model."""
    return {name: field.annotation for name, field in root.model_fields.items()}  # type: ignore[misc]


def settings(root: type[Root] = Config) -> dict[str, FieldInfo]:
    """Dotted key -> field, for every setting, in the order of the schema."""
    return {
        f"{section}.{name}": field
        for section, model in sections(root).items()
        for name, field in model.model_fields.items()
    }


def _split(keys: Iterable[str]) -> list[tuple[str, str, str]]:
    return [(key, *key.split(".", 1)) for key in keys]  # type: ignore[misc]

"""The folded generator as a graph: ONNX, or an archive of torch.export. Each file is read back and compared."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fastgan_engine.api import Run
from fastgan_engine.atomic import atomic_write
from fastgan_engine.extras import require
from fastgan_engine.folding import FoldedGenerator, fold
from fastgan_engine.model_card import model_card
from fastgan_engine.sampling import draw_inputs

NoiseMode = Literal["none", "input"]

OPSET = 18  # the first that torch's exporter writes without a conversion; onnxruntime reads it since 1.14
BATCH = "batch"
CHECKED = 3  # images that a written file is compared on; another number than it was traced with
CARD = "card.json"
TOLERANCE = 1e-3
"""Largest difference from the engine's own images, whose range is about [-1, 1]: an eighth of a grey level."""


def export_onnx(run: Run, out: Path, *, noise: NoiseMode = "none") -> float:
    """Writes ONNX with a batch of any size, and the model card in its metadata.

    noise: "none": an image is a function of z alone. "input": the maps that ``FoldedGenerator.noise_shapes`` names are
    inputs beside z; filled from N(0, 1) they give what ``sample`` gives.

    Returns the largest difference from the engine's images, computed by onnxruntime on the CPU.

    Raises:
        UserError: a package of the extra ``onnx`` is missing.
        RuntimeError: the file does not compute what the generator does.
    """
    onnx, runtime = require("onnx", extra="onnx"), require("onnxruntime", extra="onnx")
    require("onnxscript", extra="onnx")
    network = _Flat(fold(run.generator), noise).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about names that it chooses itself
        program = torch.onnx.export(
            network, network.example(2), dynamo=True, opset_version=OPSET, input_names=network.names,
            output_names=["image"], dynamic_shapes=network.dynamic_shapes(), verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    load = "onnxruntime.InferenceSession(FILE).run(None, {'z': z})"
    onnx.helper.set_model_props(model, model_card(run, load=load) | {"noise": _NOISE_IN_WORDS[noise]})
    onnx.checker.check_model(model)
    with atomic_write(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
        session = runtime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        return _compare(run, network, lambda inputs: session.run(None, {k: v.numpy() for k, v in inputs.items()})[0])


def export_archive(run: Run, out: Path, *, noise: NoiseMode = "none") -> float:
    """Writes an archive that ``torch.export.load`` reads, without this engine, with the card beside the graph.

    noise and the return value: as ``export_onnx``, computed by PyTorch.

    Raises:
        RuntimeError: the file does not compute what the generator does.
    """
    network = _Flat(fold(run.generator), noise).eval()
    program = torch.export.export(network, network.example(2), dynamic_shapes=network.dynamic_shapes())
    load = "torch.export.load(FILE).module()(z)"
    card = model_card(run, load=load) | {"noise": _NOISE_IN_WORDS[noise]}
    with atomic_write(out) as temporary:
        torch.export.save(program, temporary, extra_files={CARD: json.dumps(card, indent=2)})
        loaded = torch.export.load(temporary).module()
        return _compare(run, network, lambda inputs: loaded(*inputs.values()))


_NOISE_IN_WORDS = {
    "none": "none: the maps that training adds are left out, an image is a function of z alone",
    "input": "inputs noise_SIZE_1 and noise_SIZE_2: float32 [batch, 1, SIZE, SIZE], drawn from N(0, 1)",
}


class _Flat(nn.Module):
    """The folded generator with one argument for each input, as graphs want them."""

    def __init__(self, folded: FoldedGenerator, noise: NoiseMode) -> None:
        super().__init__()
        self.folded = folded
        self.shapes = {"z": (folded.nz,), **(folded.noise_shapes() if noise == "input" else {})}

    @property
    def names(self) -> list[str]:
        return list(self.shapes)

    def forward(self, z: Tensor, *maps: Tensor) -> Tensor:
        sizes = [first.shape[-1] for first in maps[::2]]
        pairs = zip(maps[::2], maps[1::2], strict=True)
        return self.folded(z, dict(zip(sizes, pairs, strict=True)) if maps else None)

    def example(self, batch: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(batch, *shape, generator=generator) for shape in self.shapes.values())

    def dynamic_shapes(self) -> tuple[Any, ...]:
        batch = {0: torch.export.Dim(BATCH)}
        maps = tuple(batch for _ in self.names[1:])
        return (batch, maps) if maps else (batch,)


@torch.no_grad()
def _compare(run: Run, network: _Flat, images_of: Callable[[dict[str, Tensor]], Any]) -> float:
    """Largest difference from the generator that was not folded, on batches of one and of ``CHECKED`` images."""
    worst = 0.0
    for count in (1, CHECKED):
        z, noise = draw_inputs(run.generator, 0, range(count))
        if len(network.names) == 1:
            noise = {size: (torch.zeros_like(a), torch.zeros_like(b)) for size, (a, b) in noise.items()}
        maps = [each for pair in noise.values() for each in pair]
        inputs = dict(zip(network.names, [z, *maps], strict=False))
        made = torch.as_tensor(np.asarray(images_of(inputs)))
        error = (made - run.generator(z, noise)[0]).abs().max().item()
        worst = error if not error <= worst else worst  # max() would pass over NaN
    if not worst <= TOLERANCE:
        raise RuntimeError(f"the exported file makes other images than the engine: they differ by up to {worst:.2g}")
    return worst

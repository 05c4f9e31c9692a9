"""InceptionV3 with random weights, in the file that torch-fidelity loads."""

from pathlib import Path

import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as module

from fastgan_engine.evaluation.weights import INCEPTION


class _Random(module.FeatureExtractorInceptionV3):
    def load_state_dict(self, *arguments: object, **settings: object) -> None:  # type: ignore[override]
        """Keeps the weights of the initialisation."""


def write_random_inception(folder: Path) -> Path:
    """Writes the file, with weights under which signals neither die nor explode. Returns its path."""
    placeholder = folder / "nothing.pth"
    torch.save({}, placeholder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _Random("random", ["2048"], feature_extractor_weights_path=str(placeholder))
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
    path = folder / INCEPTION.file
    torch.save(network.state_dict(), path)
    return path

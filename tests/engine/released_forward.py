"""The released networks' forward passes in training mode, computed from a state dict alone.

An independent oracle: written from the description of the released code, with none of the engine's modules.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Noise = dict[int, tuple[Tensor, Tensor]]


def unit(x: Tensor) -> Tensor:
    return x / x.norm()


def power_iteration(weight: Tensor, u: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """W / sigma and the new u. Rows of the matrix are output channels, dimension `dim` of the weight."""
    matrix = weight.movedim(dim, 0).flatten(1)
    v = unit(matrix.T @ u)
    u = unit(matrix @ v)
    return weight / (u @ matrix @ v), u


def conv(state: State, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    weight, _ = power_iteration(state[f"{name}.weight_orig"], state[f"{name}.weight_u"])
    return F.conv2d(x, weight, stride=stride, padding=padding)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)
    weight, bias = (state[f"{name}.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def glu(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a / (1 + torch.exp(-b))


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def up(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def pool_to(x: Tensor, size: int) -> Tensor:
    batch, channels, height, width = x.shape
    return x.view(batch, channels, size, height // size, size, width // size).mean(dim=(3, 5))


def gate(state: State, name: str, low: Tensor, high: Tensor) -> Tensor:
    """Skip-layer excitation, if the network has it."""
    if f"{name}.main.1.weight_orig" not in state:
        return high
    x = conv(state, f"{name}.main.1", pool_to(low, 4))
    x = conv(state, f"{name}.main.3", x * torch.sigmoid(x))
    return high * torch.sigmoid(x)


def up_block(state: State, name: str, x: Tensor) -> Tensor:
    return glu(norm(state, f"{name}.2", conv(state, f"{name}.1", up(x), padding=1)))


def up_block_comp(state: State, name: str, x: Tensor, noise: tuple[Tensor, Tensor]) -> Tensor:
    x = conv(state, f"{name}.1", up(x), padding=1) + state[f"{name}.2.weight"] * noise[0]
    x = glu(norm(state, f"{name}.3", x))
    x = conv(state, f"{name}.5", x, padding=1) + state[f"{name}.6.weight"] * noise[1]
    return glu(norm(state, f"{name}.7", x))


def generate(state: State, z: Tensor, noise: Noise, *, im_size: int, bounded: bool) -> list[Tensor]:
    """[big, small]."""
    weight, _ = power_iteration(state["init.init.0.weight_orig"], state["init.init.0.weight_u"], dim=1)
    first = torch.einsum("bi,iohw->bohw", z, weight)
    feat = {4: glu(norm(state, "init.init.1", first))}
    low = {64: 4, 128: 8, 256: 16, 512: 32}
    for size in (8, 16, 32, 64, 128, 256, 512, 1024):
        if size > im_size:
            break
        if size in (8, 32, 128, 512):
            feat[size] = up_block_comp(state, f"feat_{size}", feat[size // 2], noise[size])
        else:
            feat[size] = up_block(state, f"feat_{size}", feat[size // 2])
        if size in low:
            feat[size] = gate(state, f"se_{size}", feat[low[size]], feat[size])
    small = min(128, im_size // 2)
    images = [conv(state, "to_big", feat[im_size], padding=1), conv(state, f"to_{small}", feat[small])]
    return [image.tanh() for image in images] if bounded else images


def down(state: State, name: str, x: Tensor) -> Tensor:
    main = leaky(norm(state, f"{name}.main.1", conv(state, f"{name}.main.0", x, stride=2, padding=1)))
    main = leaky(norm(state, f"{name}.main.4", conv(state, f"{name}.main.3", main, padding=1)))
    pooled = pool_to(x, x.shape[-1] // 2)
    direct = leaky(norm(state, f"{name}.direct.2", conv(state, f"{name}.direct.1", pooled)))
    return (main + direct) / 2


def from_big(state: State, x: Tensor, im_size: int) -> Tensor:
    if im_size <= 256:
        return leaky(conv(state, "down_from_big.0", x, padding=1))
    x = leaky(conv(state, "down_from_big.0", x, stride=2, padding=1))
    if im_size == 512:
        return x
    return leaky(norm(state, "down_from_big.3", conv(state, "down_from_big.2", x, stride=2, padding=1)))


def decode(state: State, name: str, x: Tensor) -> Tensor:
    x = pool_to(x, 8)
    blocks = sum(f"{name}.main.{index}.1.weight_orig" in state for index in range(1, 5))
    for index in range(1, blocks + 1):
        x = up_block(state, f"{name}.main.{index}", x)
    return conv(state, f"{name}.main.{blocks + 1}", x, padding=1).tanh()


def discriminate(state: State, big: Tensor, small: Tensor, *, im_size: int, part: int) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the reconstructions of the big image, the small one and a quadrant (none without decoders)."""
    steps = [2, 4, 8, 16, 32, 64][{64: 2, 128: 1}.get(im_size, 0) :]
    feat = {steps[0]: from_big(state, big, im_size)}
    low = {16: 2, 32: 4, 64: 8}
    for step in steps[1:]:
        feat[step] = down(state, f"down_{step}", feat[step // 2])
        if low.get(step) in feat:
            feat[step] = gate(state, f"se_{low[step]}_{step}", feat[low[step]], feat[step])
    head = leaky(norm(state, "rf_big.1", conv(state, "rf_big.0", feat[64])))
    logits_big = conv(state, "rf_big.3", head)
    branch = leaky(conv(state, "down_from_small.0", small, stride=2, padding=1))
    for index in range(2, 5):
        name = f"down_from_small.{index}.main"
        if f"{name}.0.weight_orig" in state:
            branch = leaky(norm(state, f"{name}.1", conv(state, f"{name}.0", branch, stride=2, padding=1)))
    logits = torch.cat([logits_big.flatten(), conv(state, "rf_small", branch).flatten()])
    if "decoder_big.main.1.1.weight_orig" not in state:
        return logits, []
    top, left = [(0, 0), (0, 8), (8, 0), (8, 8)][part]
    quarter = feat[32][:, :, top : top + 8, left : left + 8]
    maps = {"decoder_big": feat[64], "decoder_small": branch, "decoder_part": quarter}
    return logits, [decode(state, name, x) for name, x in maps.items()]

"""The engine's iteration against the released one, given the same draws."""

import copy
import statistics

import pytest
import torch
from torch import Tensor, nn

from fastgan_engine.build import build_loss, build_state, build_step
from fastgan_engine.config import Config
from fastgan_engine.draws import Draws, draw
from fastgan_engine.reference_step import ReferenceStep, StepLosses
from fastgan_engine.state import TrainingState

CPU = torch.device("cpu")
BATCH, SIZE = 4, 64
# Adam's first step is the sign of the gradient: it turns roundings into full steps. Comparisons leave weights alone.
FROZEN: dict[str, dict[str, object]] = {"train": {"lr": 1e-30}}


def config_of(**sections: dict[str, object]) -> Config:
    base: dict[str, dict[str, object]] = {
        "model": {"im_size": SIZE, "ngf": 8, "ndf": 8, "nz": 16},
        "loss": {"reconstruction": "l1"},
        "train": {"batch": BATCH},
        "precision": {"dtype": "fp32"},
    }
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return Config.model_validate(base)


def state_of(config: Config, dtype: torch.dtype = torch.float32) -> TrainingState:
    """A fresh state whose singular vectors have converged: one power iteration more then makes no difference."""
    state = build_state(config, CPU, dtype)
    for network in (state.networks.generator, state.networks.discriminator):
        for module in network.modules():
            if hasattr(module, "weight_orig"):
                weight = module.weight_orig.detach()
                weight = weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else weight
                u, _, v = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
                module.weight_u.copy_(u[:, 0])
                module.weight_v.copy_(v[0])
    return state


def batch_of(config: Config, seed: int) -> tuple[Tensor, Draws]:
    model = config.model
    generator = torch.Generator().manual_seed(seed)
    reals = torch.rand(BATCH, model.nc, SIZE, SIZE, generator=generator) * 2 - 1
    draws = draw(BATCH, im_size=SIZE, nz=model.nz, policy=config.loss.augment, generator=generator)
    return reals.contiguous(memory_format=torch.channels_last), draws


def reference_step(config: Config, state: TrainingState) -> ReferenceStep:
    loss = build_loss(config, random_weights=True)
    opt_g, opt_d = (
        torch.optim.Adam(network.parameters(), lr=config.train.lr, betas=(config.train.beta1, config.train.beta2))
        for network in (state.networks.generator, state.networks.discriminator)
    )
    return ReferenceStep(state.networks, loss, opt_g, opt_d, ema_decay=config.train.ema_decay)


def engine_step(config: Config, state: TrainingState, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    loss = build_loss(config, random_weights=True)
    return build_step(config, state, loss, dtype)


def in_double(value):  # type: ignore[no-untyped-def]
    """Draws in fp64, whatever their nesting."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: in_double(item) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [in_double(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def gradient(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.double().flatten() for p in network.parameters() if p.grad is not None])


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"model": {"skip": False}},
        {"model": {"decode": False}},
        {"model": {"tanh": "always", "nc": 1}},
        {"loss": {"augment": ""}},
        {"loss": {"augment": "color,translation,cutout"}},
    ],
    ids=["standard", "no-skip", "no-decode", "grey-tanh", "no-augment", "cutout"],
)
def test_losses_and_running_state_are_the_references(sections: dict[str, dict[str, object]]) -> None:
    config = config_of(**FROZEN, **sections)
    reference, engine = state_of(config), state_of(config)
    reals, draws = batch_of(config, seed=1)
    expected = reference_step(config, reference)(reals, draws)
    got = engine_step(config, engine)(reals, draws)
    torch.testing.assert_close(torch.stack(list(got)), torch.stack(list(expected)), rtol=1e-4, atol=1e-5)
    for name in ("generator", "discriminator", "ema"):
        wanted = getattr(reference.networks, name).state_dict()
        for key, value in getattr(engine.networks, name).state_dict().items():
            if key.endswith(("running_mean", "running_var")):
                torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-5, msg=f"{name}: {key}")


def test_weights_and_their_average_move_as_the_references() -> None:
    config = config_of(train={"ema_decay": 0.9})
    reference, engine = state_of(config), state_of(config)
    reals, draws = batch_of(config, seed=9)
    reference_step(config, reference)(reals, draws)
    engine_step(config, engine)(reals, draws)
    start = state_of(config).networks.generator
    for (name, average), live, initial in zip(
        engine.networks.ema.named_parameters(), engine.networks.generator.parameters(), start.parameters(), strict=True
    ):
        torch.testing.assert_close(average, 0.9 * initial + 0.1 * live, rtol=1e-5, atol=1e-7, msg=name)
    moved = torch.cat([p.flatten() for p in engine.networks.generator.parameters()])
    wanted = torch.cat([p.flatten() for p in reference.networks.generator.parameters()])
    # All but the few whose gradient is a rounding, and so its sign a coin's.
    assert ((moved - wanted).abs() < 2e-5).float().mean() > 0.97


def test_gradients_are_as_near_to_fp64_as_the_references() -> None:
    """LeakyReLU's kink makes single gradients of any fp32 run jump; over several draws both are equally near."""
    config = config_of(**FROZEN)
    errors: dict[str, list[float]] = {"reference": [], "engine": []}
    for seed in range(5):
        reals, draws = batch_of(config, seed)
        exact, reference, engine = state_of(config), state_of(config), state_of(config)
        for network in (exact.networks.generator, exact.networks.discriminator, exact.networks.ema):
            network.double()
        reference_step(config, exact)(reals.double(), in_double(draws))
        reference_step(config, reference)(reals, draws)
        engine_step(config, engine)(reals, draws)
        truth = gradient(exact.networks.generator)
        errors["reference"].append(relative(gradient(reference.networks.generator), truth))
        errors["engine"].append(relative(gradient(engine.networks.generator), truth))
    assert statistics.median(errors["engine"]) <= 2 * statistics.median(errors["reference"]), errors
    assert min(errors["engine"]) < 1e-4, errors


def test_d_gradients_are_those_of_its_own_losses() -> None:
    """The released D step's gradient, computed here pass by pass; that of the G pass is not in it."""
    config = config_of(**FROZEN)
    reference, engine = state_of(config), state_of(config)
    reals, draws = batch_of(config, seed=2)
    engine_step(config, engine)(reals, draws)
    step = reference_step(config, reference)
    kept: list[Tensor] = []
    step.opt_d.register_step_pre_hook(lambda *_: kept.append(gradient(reference.networks.discriminator)))
    step(reals, draws)
    assert relative(gradient(engine.networks.discriminator), kept[0]) < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    config = config_of()
    reals, draws = batch_of(config, seed=3)
    expected = reference_step(config, state_of(config))(reals, draws)
    state = state_of(config, dtype)
    got = engine_step(config, state, dtype)(reals, draws)
    assert torch.stack(list(got)) == pytest.approx(torch.stack(list(expected)), rel=0.05, abs=0.05)
    assert state.scalers["g"].is_enabled() == (dtype == torch.float16)
    for parameter in (*state.networks.generator.parameters(), *state.networks.discriminator.parameters()):
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all()


def test_overflow_skips_the_update_and_lowers_the_scale() -> None:
    config = config_of()
    state = state_of(config, torch.float16)
    for scaler in state.scalers.values():
        scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**127})
    before = copy.deepcopy(state.networks.discriminator.state_dict())
    engine_step(config, state, torch.bfloat16)(*batch_of(config, seed=4))  # as wide as fp16 is narrow, and much faster
    for name, parameter in state.networks.discriminator.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert state.scalers["d"].get_scale() == 2.0**126


class TestMicroBatches:
    def test_loss_scaling_is_exact(self) -> None:
        """Two micro-batches that are copies of one have its statistics: its hinge, twice its reconstruction."""
        half_config, config = config_of(train={"batch": BATCH // 2}), config_of(train={"micro_batch": BATCH // 2})
        reals, draws = batch_of(config, seed=5)
        first = _half(draws)
        half = engine_step(half_config, state_of(half_config))(reals[: BATCH // 2], first)
        whole = engine_step(config, state_of(config))(reals[: BATCH // 2].repeat(2, 1, 1, 1), _twice(first))
        assert float(whole.d_real) == pytest.approx(float(half.d_real), rel=1e-5)
        assert float(whole.d_fake) == pytest.approx(float(half.d_fake), rel=1e-5)
        assert float(whole.reconstruction) == pytest.approx(2 * float(half.reconstruction), rel=1e-5)

    def test_gradient_of_g_is_the_mean_of_the_halves(self) -> None:
        config = config_of(train={"micro_batch": BATCH // 2, "lr": 1e-30})
        half_config = config_of(train={"batch": BATCH // 2, "lr": 1e-30})
        reals, draws = batch_of(config, seed=6)
        first = _half(draws)
        half, whole = state_of(half_config), state_of(config)
        engine_step(half_config, half)(reals[: BATCH // 2], first)
        engine_step(config, whole)(reals[: BATCH // 2].repeat(2, 1, 1, 1), _twice(first))
        assert relative(gradient(whole.networks.generator), gradient(half.networks.generator)) < 1e-3

    def test_repeating_g_moves_its_statistics_once(self) -> None:
        config, plain = config_of(train={"micro_batch": BATCH}), config_of()
        split = config_of(train={"micro_batch": BATCH // 2})
        state = state_of(split)
        engine_step(split, state)(*batch_of(config, seed=7))
        by_hand = state_of(plain).networks.generator.train()
        _, draws = batch_of(config, seed=7)
        for rows in (slice(0, BATCH // 2), slice(BATCH // 2, BATCH)):
            noise = {size: (first[rows], second[rows]) for size, (first, second) in draws.noise.items()}
            by_hand(draws.z[rows], noise)
        for name, buffer in by_hand.named_buffers():
            if name.endswith("running_var"):
                torch.testing.assert_close(
                    state.networks.generator.get_buffer(name), buffer, rtol=1e-3, atol=1e-5, msg=name
                )


def _half(draws: Draws) -> Draws:
    """The draws of the first half of the batch."""
    rows = slice(0, BATCH // 2)

    def margins(values: Tensor) -> Tensor:
        return values.view(2, BATCH, -1)[:, rows].reshape(-1)

    def augment(params):  # type: ignore[no-untyped-def]
        return type(params)(*(None if value is None else value[rows] for value in params))

    return Draws(
        draws.z[rows],
        {size: (a[rows], b[rows]) for size, (a, b) in draws.noise.items()},
        margins(draws.margins_real),
        margins(draws.margins_fake),
        augment(draws.augment_real),
        augment(draws.augment_big),
        augment(draws.augment_small),
        draws.part,
    )


def _twice(draws: Draws) -> Draws:
    """A batch of two copies of these draws."""

    def double(values: Tensor) -> Tensor:
        return torch.cat([values, values])

    def margins(values: Tensor) -> Tensor:
        return double(values.view(2, BATCH // 2, -1).transpose(0, 1)).transpose(0, 1).reshape(-1)

    def augment(params):  # type: ignore[no-untyped-def]
        return type(params)(*(None if value is None else double(value) for value in params))

    return Draws(
        double(draws.z),
        {size: (double(a), double(b)) for size, (a, b) in draws.noise.items()},
        margins(draws.margins_real),
        margins(draws.margins_fake),
        augment(draws.augment_real),
        augment(draws.augment_big),
        augment(draws.augment_small),
        draws.part,
    )


def test_training_improves_the_reconstruction() -> None:
    """Fifty steps on one batch: the decoders learn it."""
    config = config_of(train={"lr": 1e-3})
    state = state_of(config)
    step = engine_step(config, state)
    losses: list[StepLosses] = []
    reals, _ = batch_of(config, seed=8)
    reals = nn.functional.avg_pool2d(reals, 16).repeat_interleave(16, 2).repeat_interleave(16, 3)
    for index in range(30):
        _, draws = batch_of(config, seed=index)
        losses.append(step(reals.contiguous(memory_format=torch.channels_last), draws))
    assert float(losses[-1].reconstruction) < 0.8 * float(losses[0].reconstruction)

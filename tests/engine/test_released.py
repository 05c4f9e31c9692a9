"""Checkpoints of the released code, read and written back, against files made with plain PyTorch."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import fastgan_engine
from fastgan_engine.errors import UserError
from fastgan_engine.networks import Generator
from fastgan_engine.recalibration import BATCH, recalibrate
from fastgan_engine.released import load_released, save_released
from fastgan_engine.sampling import draw_inputs
from tests.engine import released_forward
from tests.engine.weights import STEPS, Trained, assert_same_state, copied, save_as_released, train_step, trained


@pytest.fixture(scope="module")
def networks() -> Trained:
    return trained()


@pytest.fixture(scope="module")
def all_999(networks: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "all_999.pth"
    return save_as_released(path, networks, everything=True, parallel=False)


@pytest.fixture
def everything(all_999: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(all_999, tmp_path))


class TestReading:
    @pytest.mark.parametrize(
        ("all_", "parallel", "zipped"),
        [(False, False, True), (False, True, False), (True, False, True), (True, True, True)],
    )
    def test_both_formats(self, networks: Trained, tmp_path: Path, all_: bool, parallel: bool, zipped: bool) -> None:
        path = save_as_released(tmp_path / "1.pth", networks, everything=all_, parallel=parallel, zipped=zipped)
        released = fastgan_engine.load_released(path)
        assert released.discriminator is not None
        assert_same_state(released.generator.state_dict(), networks.generator.state_dict())
        assert_same_state(released.discriminator.state_dict(), networks.discriminator.state_dict())
        assert released.generator.training
        assert released.discriminator.training
        assert (released.averaged is not None) == all_
        assert (released.opt_g is not None) == (released.opt_d is not None) == all_

    def test_a_bare_generator(self, networks: Trained, tmp_path: Path) -> None:
        torch.save(torch.nn.DataParallel(networks.generator).state_dict(), tmp_path / "g.pth")
        released = load_released(tmp_path / "g.pth")
        assert_same_state(released.generator.state_dict(), networks.generator.state_dict())
        assert released.discriminator is None

    @pytest.mark.parametrize(("im_size", "nz", "nc"), [(128, 8, 1), (256, 32, 4), (512, 8, 3)])
    def test_sizes_come_from_the_shapes(self, tmp_path: Path, im_size: int, nz: int, nc: int) -> None:
        generator = Generator(im_size, nz=nz, ngf=24, nc=nc, skip=im_size != 128)
        torch.save({"g": generator.state_dict()}, tmp_path / "1.pth")
        found = load_released(tmp_path / "1.pth").generator
        assert (found.im_size, found.nz, found.ngf, found.nc, found.skip) == (im_size, nz, 24, nc, im_size != 128)

    def test_the_generator_gives_the_released_outputs(self, everything: Path) -> None:
        released = load_released(everything)
        state = {name: tensor.double() for name, tensor in released.generator.state_dict().items()}
        z, noise = draw_inputs(released.generator, 0, range(4))
        wide = {size: (first.double(), second.double()) for size, (first, second) in noise.items()}
        expected = released_forward.generate(state, z.double(), wide, im_size=64, bounded=False)
        for image, reference in zip(released.generator(z, noise), expected, strict=True):
            torch.testing.assert_close(image.double(), reference, rtol=1e-3, atol=1e-4 * reference.abs().max().item())

    def test_the_discriminator_gives_the_released_outputs(self, everything: Path) -> None:
        discriminator = load_released(everything).discriminator
        assert discriminator is not None
        state = {name: tensor.double() for name, tensor in discriminator.state_dict().items()}
        images = [torch.randn(4, 3, 64, 64), torch.randn(4, 3, 32, 32)]
        expected, _ = released_forward.discriminate(state, images[0].double(), images[1].double(), im_size=64, part=0)
        logits = discriminator(images).double()
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())

    def test_the_step_is_what_adam_counted_not_the_name(self, networks: Trained, everything: Path) -> None:
        assert load_released(everything).step == STEPS
        plain = save_as_released(everything.with_name("999.pth"), networks, everything=False, parallel=False)
        assert load_released(plain).step is None

    def test_optimizers_go_on_where_they_were(self, everything: Path) -> None:
        released, before = load_released(everything), trained()
        assert released.discriminator is not None
        assert released.opt_g is not None
        assert released.opt_d is not None
        opt_g = torch.optim.Adam(released.generator.parameters())
        opt_d = torch.optim.Adam(released.discriminator.parameters())
        opt_g.load_state_dict(released.opt_g)
        opt_d.load_state_dict(released.opt_d)
        torch.manual_seed(1)
        train_step(released.generator, released.discriminator, opt_g, opt_d, torch.randn(4, 16))
        torch.manual_seed(1)
        train_step(before.generator, before.discriminator, before.opt_g, before.opt_d, torch.randn(4, 16))
        assert_same_state(released.generator.state_dict(), before.generator.state_dict())
        assert_same_state(released.discriminator.state_dict(), before.discriminator.state_dict())

    def test_lists_are_in_the_order_of_the_file(self, networks: Trained, everything: Path, tmp_path: Path) -> None:
        """A fork that registers its modules in another order: its g_ema and its optimizer follow that order."""
        content = torch.load(everything)
        names = [name for name, _ in networks.generator.named_parameters()]
        order = list(reversed(range(len(names))))
        content["g"] = dict(reversed(content["g"].items()))
        content["g_ema"] = [content["g_ema"][index] for index in order]
        content["opt_g"]["state"] = {new: content["opt_g"]["state"][old] for new, old in enumerate(order)}
        torch.save(content, tmp_path / "fork.pth")
        released, expected = load_released(tmp_path / "fork.pth"), networks.opt_g.state_dict()["state"]
        assert released.opt_g is not None
        assert released.averaged is not None
        for index, name in enumerate(names):
            assert torch.equal(released.averaged[name], networks.averaged[index])
            assert torch.equal(released.opt_g["state"][index]["exp_avg"], expected[index]["exp_avg"])

    def test_the_global_random_state_is_left_alone(self, everything: Path) -> None:
        torch.manual_seed(5)
        expected = torch.randn(3)
        torch.manual_seed(5)
        assert load_released(everything).ema
        assert torch.equal(torch.randn(3), expected)


class TestAverage:
    def test_has_the_averaged_weights_and_evaluates(self, networks: Trained, everything: Path) -> None:
        released = load_released(everything)
        live = copied(released.generator.state_dict())
        assert not released.ema.training
        for parameter, expected in zip(released.ema.parameters(), networks.averaged, strict=True):
            assert torch.equal(parameter, expected)
        assert_same_state(released.generator.state_dict(), live)
        assert released.generator.training

    def test_is_g_itself_where_there_is_no_list(self, networks: Trained, tmp_path: Path) -> None:
        path = save_as_released(tmp_path / "1.pth", networks, everything=False, parallel=False)
        for parameter, expected in zip(
            load_released(path).ema.parameters(), networks.generator.parameters(), strict=True
        ):
            assert torch.equal(parameter, expected)

    def test_batch_norm_statistics_are_those_of_its_own_weights(self, everything: Path) -> None:
        """Of the first layer, in closed form: the average over batches of the convolution's mean and variance."""
        ema = load_released(everything).ema
        state = {name: tensor.double() for name, tensor in ema.state_dict().items()}
        weight, u, v = (state[f"init.init.0.{kind}"] for kind in ("weight_orig", "weight_u", "weight_v"))
        weight = weight / (u @ weight.movedim(1, 0).flatten(1) @ v)
        z, _ = draw_inputs(ema, 0, range(32 * BATCH))
        maps = torch.einsum("nbi,iohw->onbhw", z.double().view(32, BATCH, -1), weight).flatten(2)
        torch.testing.assert_close(state["init.init.1.running_mean"], maps.mean(2).mean(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state["init.init.1.running_var"], maps.var(2).mean(1), rtol=1e-4, atol=1e-6)

    def test_recalibration_makes_evaluation_stand_for_training(self, networks: Trained) -> None:
        generator = Generator(64, nz=16, ngf=8)
        generator.load_state_dict(networks.generator.state_dict())
        recalibrate(generator, batches=1, seed=4)
        with torch.no_grad():
            inputs = draw_inputs(generator, 4, range(BATCH))
            evaluated, trained_mode = generator.eval()(*inputs)[0], generator.train()(*inputs)[0]
        # Running variances are unbiased, those of a batch are not: at most a factor of 128/127 for these maps.
        assert (evaluated - trained_mode).norm() / trained_mode.norm() < 0.02

    def test_recalibration_changes_nothing_else(self, networks: Trained) -> None:
        generator = Generator(64, nz=16, ngf=8)
        generator.load_state_dict(networks.generator.state_dict())
        before = copied(generator.state_dict())
        recalibrate(generator, batches=2)
        changed = {name for name, tensor in generator.state_dict().items() if not torch.equal(tensor, before[name])}
        assert {name.rsplit(".", 1)[1] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
        assert all(module.training for module in generator.modules())
        assert {m.momentum for m in generator.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


class TestWriting:
    @pytest.mark.parametrize("all_", [True, False])
    def test_round_trip_key_by_key_and_value_by_value(self, networks: Trained, tmp_path: Path, all_: bool) -> None:
        original = save_as_released(tmp_path / "1.pth", networks, everything=all_, parallel=False)
        released, copy_ = load_released(original), tmp_path / "2.pth"
        extra: dict[str, Any] = {"ema": released.ema, "opt_g": released.opt_g, "opt_d": released.opt_d} if all_ else {}
        save_released(copy_, released.generator, released.discriminator, **extra)
        written, expected = torch.load(copy_), torch.load(original)
        assert list(written) == list(expected)
        for entry in ("g", "d"):
            assert_same_state(written[entry], expected[entry])
        if all_:
            torch.testing.assert_close(written["g_ema"], expected["g_ema"], rtol=0, atol=0)
            for entry in ("opt_g", "opt_d"):
                torch.testing.assert_close(written[entry]["state"], expected[entry]["state"], rtol=0, atol=0)
                assert written[entry]["param_groups"] == expected[entry]["param_groups"]

    def test_what_this_machine_prefers_is_not_written(self, networks: Trained, tmp_path: Path) -> None:
        """Fused Adam and channels-last weights are ours; the released code may run anywhere."""
        generator = Generator(64, nz=16, ngf=8).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(generator.parameters(), fused=True)
        generator(torch.randn(2, 16))[0].mean().backward()
        optimizer.step()
        save_released(tmp_path / "1.pth", generator, opt_g=optimizer.state_dict())
        content = torch.load(tmp_path / "1.pth")
        assert content["opt_g"]["param_groups"][0]["fused"] is None
        assert optimizer.state_dict()["param_groups"][0]["fused"] is True
        moments = [moment for state in content["opt_g"]["state"].values() for moment in state.values()]
        assert all(tensor.is_contiguous() for tensor in (*content["g"].values(), *moments))


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda c: c["g"].pop("to_big.weight_u"), r"g does not fit .* Generator; missing: to_big\.weight_u$"),
            (lambda c: c["g"].update(extra=torch.ones(1)), "g does not fit .* unexpected: extra$"),
            (
                lambda c: c["g"].update({"feat_8.3.bias": torch.ones(3)}),
                r"of another shape: feat_8\.3\.bias \[3\] \(expected \[128\]\)$",
            ),
            (lambda c: c["g"].pop("to_big.weight_orig"), r"g is not .* has no convolution to_big\.weight_orig"),
            (lambda c: c["d"].pop("rf_small.weight_orig"), r"d is not .* has no convolution rf_small\.weight_orig"),
            (lambda c: c["d"].pop("rf_big.1.bias"), r"d does not fit .* Discriminator; missing: rf_big\.1\.bias$"),
            (lambda c: c.update(d=[1]), "d is not a state dict .* but a list"),
            (lambda c: c["g_ema"].pop(), r"g_ema has 28 entries, expected a list of 29 tensors"),
            (lambda c: c["g_ema"].reverse(), r"g_ema is not in the order of g: init\.init\.0\.weight_orig"),
            (lambda c: c["opt_g"].pop("state"), "opt_g is not the state of one Adam over the 29 parameters"),
            (lambda c: c["opt_d"]["param_groups"][0]["params"].pop(), "opt_d is not the state of one Adam"),
            (
                lambda c: c.pop("g"),
                "holds a dictionary with d, g_ema, expected a dictionary with g and d",
            ),
        ],
    )
    def test_what_does_not_fit_is_named(self, everything: Path, change: Any, message: str) -> None:
        content = torch.load(everything)
        if "opt" not in message:
            del content["opt_g"], content["opt_d"]
        change(content)
        torch.save(content, everything)
        with pytest.raises(UserError, match=message) as caught:
            load_released(everything)
        assert str(everything) in str(caught.value)

    def test_another_network(self, tmp_path: Path) -> None:
        torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "x.pth")
        with pytest.raises(UserError, match=r"its last block is missing, expected one of feat_64, .*feat_1024$"):
            load_released(tmp_path / "x.pth")

    @pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"])
    def test_no_tensors(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read .*x\.pth: .*; expected a \.pth of the released") as caught:
            load_released(tmp_path / "x.pth")
        assert "weights_only" not in str(caught.value)

    def test_cut_short(self, everything: Path) -> None:
        everything.write_bytes(everything.read_bytes()[:-1000])
        with pytest.raises(UserError, match="cannot read"):
            load_released(everything)

    def test_code_in_a_file_is_not_run(self, tmp_path: Path) -> None:
        class Attack:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "pwned",))

        torch.save({"g": Attack()}, tmp_path / "x.pth")
        with pytest.raises(UserError, match="it holds Python objects"):
            load_released(tmp_path / "x.pth")
        assert not (tmp_path / "pwned").exists()

    @pytest.mark.parametrize("name", ["missing.pth", "."])
    def test_no_file(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UserError, match="cannot read"):
            load_released(tmp_path / name)

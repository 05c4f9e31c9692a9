"""A plan of a small network: what it must hold whatever the sizes, and what is known exactly."""

import json
from functools import cache

import pytest
import torch

from fastgan_engine.build import build_loss, build_networks
from fastgan_engine.config import Config
from fastgan_engine.memory.phases import BACKWARD, D_BACKWARD, D_FORWARD, G_FORWARD, ITERATION, PHASES, SAMPLING
from fastgan_engine.memory.plan import CONTEXT, OPTIMIZER, WEIGHTS, Plan
from fastgan_engine.memory.rehearsal import plan
from fastgan_engine.memory.report import as_json
from tests.engine.small import small_config

IMAGES = 10


@cache
def planned(
    im_size: int = 64, batch: int = 2, *, step: str = "graph", recompute: bool = False, dtype: str = "fp32"
) -> Plan:
    return plan(config_of(im_size, batch, step=step, recompute=recompute, dtype=dtype), images=IMAGES)


def config_of(im_size: int = 64, batch: int = 2, *, dtype: str = "fp32", **engine: object) -> Config:
    return small_config(
        model={"im_size": im_size}, train={"batch": batch}, precision={"dtype": dtype},
        engine={"kernels": "triton", **engine},
    )  # fmt: skip


@pytest.fixture
def default() -> Plan:
    return planned()


def test_categories_add_up_to_the_peak(default: Plan) -> None:
    categories = default.categories()
    assert sum(categories.values()) == default.peak
    assert min(categories.values()) >= 0
    assert default.peak == default.reserved + CONTEXT


def test_weights_are_the_bytes_of_parameters_and_buffers(default: Plan) -> None:
    config = config_of()
    networks = build_networks(config, torch.device("cpu"))
    modules = (networks.generator, networks.discriminator, networks.ema, build_loss(config))
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    assert default.categories()[WEIGHTS] == sum(t.numel() * t.element_size() for t in tensors)
    trained = [*networks.generator.parameters(), *networks.discriminator.parameters()]
    # Two moments a weight, and a step count each.
    assert default.categories()[OPTIMIZER] == sum(8 * t.numel() for t in trained) + 4 * len(trained)


def test_phases_are_all_there_and_reserved_memory_never_shrinks(default: Plan) -> None:
    phases = default.phases()
    assert tuple(phases) == PHASES
    reserved = [phase.reserved for phase in phases.values()]
    assert reserved == sorted(reserved)
    assert all(phase.live <= phase.reserved for phase in phases.values())


def test_every_phase_of_the_iteration_is_entered_in_order(default: Plan) -> None:
    seen = list(dict.fromkeys(event.phase for event in default.events if event.phase in ITERATION))
    assert seen == list(ITERATION)


def test_more_images_need_more() -> None:
    peaks = [planned(batch=batch).peak_live() for batch in (2, 8)]
    assert peaks == sorted(set(peaks))


def test_larger_images_need_more() -> None:
    assert planned(128).peak_live() > planned(64).peak_live()


def test_a_graph_holds_its_pool_beside_the_samples() -> None:
    eager, graph = planned(step="eager"), planned()
    assert eager.categories()["graph pools"] == 0
    held = [moment for moment in graph.moments if moment.phase == SAMPLING]
    iteration = max(moment.reserved_by_graph for moment in graph.moments if moment.phase in ITERATION)
    assert {moment.reserved_by_graph for moment in held} == {iteration}
    assert graph.reserved >= eager.reserved


def test_recompute_gives_up_the_generators_graph_during_the_d_step() -> None:
    plain, recompute = planned(batch=8), planned(batch=8, recompute=True)
    for phase in (G_FORWARD, D_FORWARD, D_BACKWARD):
        assert recompute.phases()[phase].live < plain.phases()[phase].live
    assert recompute.phases()[BACKWARD].live <= plain.phases()[BACKWARD].live


def test_half_precision_needs_less() -> None:
    assert planned(batch=8, dtype="fp16").peak_live() < planned(batch=8).peak_live()


def test_largest_are_alive_at_the_peak_and_named(default: Plan) -> None:
    largest = default.largest()
    assert len(largest) == 10
    assert [s.bytes for s in largest] == sorted((s.bytes for s in default.alive()), reverse=True)[:10]
    assert any(storage.name.startswith(("G.", "D.", "average.", "Adam.")) for storage in largest)


def test_json_has_what_it_promises(default: Plan) -> None:
    values = json.loads(json.dumps(as_json(default)))
    assert values["peak_gib"] == pytest.approx(default.peak / 2**30)
    assert sum(values["categories"].values()) == pytest.approx(values["peak_gib"])
    assert set(values["phases"]) == set(PHASES)
    assert len(values["largest"]) == 10
    assert {"bytes", "shape", "dtype", "name", "phase", "category"} <= values["largest"][0].keys()

"""The tracker against closed forms: what a chain of convolutions keeps, and when it goes."""

import torch
import torch.nn.functional as F
from torch import nn

from fastgan_engine.bench.fake_iteration import fake_tensors
from fastgan_engine.memory.tracker import SAVED, TEMPORARY, Tracker

BATCH, CHANNELS, SIDE, DEPTH = 2, 8, 16, 5
MAP = BATCH * CHANNELS * SIDE * SIDE * 4
WEIGHT = CHANNELS * CHANNELS * 9 * 4


def live(tracker: Tracker) -> list[int]:
    """Bytes alive after each event."""
    total, timeline = 0, []
    for event in tracker.events:
        size = tracker.storages[event.storage].bytes
        total += size if event.comes else -size
        timeline.append(total)
    return timeline


def test_a_chain_of_convolutions_without_gradients_holds_two_maps() -> None:
    with fake_tensors():
        weights = [torch.empty(CHANNELS, CHANNELS, 3, 3) for _ in range(DEPTH)]
        x = torch.empty(BATCH, CHANNELS, SIDE, SIDE)
        tracker = Tracker()
        with tracker, torch.no_grad():
            for weight in weights:
                x = F.conv2d(x, weight, padding=1)
        assert max(live(tracker)) == 2 * MAP
        assert live(tracker)[-1] == MAP


def test_backward_frees_layer_by_layer() -> None:
    """Most is alive at the second layer from the end.

    Before: what is given, DEPTH outputs, the last one's gradient. The last layer adds the gradients of its input and
    its weight, then its input goes and the next adds as much. From then on a layer frees two maps and makes one.
    """
    with fake_tensors():
        weights = [nn.Parameter(torch.empty(CHANNELS, CHANNELS, 3, 3)) for _ in range(DEPTH)]
        x = torch.empty(BATCH, CHANNELS, SIDE, SIDE)
        tracker = Tracker()
        tracker.adopt([("x", x), *((f"w{i}", w) for i, w in enumerate(weights))], "given")
        given = MAP + DEPTH * WEIGHT
        assert live(tracker)[-1] == given
        with tracker:
            y = x
            with tracker.marking_saved():
                for weight in weights:
                    y = F.conv2d(y, weight, padding=1)
            assert live(tracker)[-1] == given + DEPTH * MAP
            saved = [storage.bytes for storage in tracker.storages if storage.category == SAVED]
            assert saved == [MAP] * (DEPTH - 1)  # x is given, and nothing needs the last output
            grad = torch.empty_like(y)
            torch.autograd.backward([y], [grad])
            assert max(live(tracker)) == given + (DEPTH + 2) * MAP + 2 * WEIGHT
            del y, grad
        assert live(tracker)[-1] == given + DEPTH * WEIGHT


def test_views_and_in_place_operations_bring_nothing() -> None:
    with fake_tensors():
        x = torch.empty(4, 4)
        tracker = Tracker()
        tracker.adopt([("x", x)], "given")
        with tracker:
            y = x.t()[1:].reshape(-1)[:2]
            x.add_(1)
            del y
        assert len(tracker.storages) == 2  # reshape of a transposed slice copies
        assert tracker.storages[1].bytes == 3 * 4 * 4
        assert live(tracker)[-1] == x.untyped_storage().nbytes()


def test_a_storage_knows_its_operation_phase_and_shape() -> None:
    with fake_tensors():
        x = torch.empty(3, 5, dtype=torch.float16)
        tracker = Tracker()
        with tracker:
            tracker.phase = "a phase"
            y = x + 1
            tracker.phase = "another"
            del y
        (storage,) = tracker.storages
        assert (storage.made_by, storage.phase, storage.shape, storage.dtype) == (
            "add",
            "a phase",
            (3, 5),
            torch.float16,
        )
        assert storage.category == TEMPORARY
        assert [(event.comes, event.phase) for event in tracker.events] == [(True, "a phase"), (False, "another")]


def test_marks_do_not_replace_what_is_owned() -> None:
    with fake_tensors():
        owned, other = torch.empty(2), torch.empty(2)
        tracker = Tracker()
        tracker.adopt([("owned", owned)], "mine")
        with tracker:
            made = other + 1
            tracker.mark([owned, made], "gradients")
        assert [storage.category for storage in tracker.storages] == ["mine", "gradients"]

"""A recorded run as a memory plan: by phase, by what the memory is for, and what is largest.

Sizes and lifetimes are those of a real run (``rehearsal``). Around them stands a model, not yet compared with a GPU:

- what PyTorch reserves for these sizes is its allocator's arithmetic (``allocator``);
- a captured iteration has a private pool, which nothing else may use even while the graph does not run: samples come
  on top of it;
- the workspaces of cuBLAS and cuDNN, the context and the loaded kernels are constants, below.
"""

from dataclasses import dataclass
from functools import cached_property

from fastgan_engine.memory.allocator import MIB, CachingAllocator, ExpandableAllocator
from fastgan_engine.memory.phases import ITERATION, PHASES
from fastgan_engine.memory.tracker import SAVED, TEMPORARY, Event, Storage

GIB = 2**30
# Assumed, not measured. cuBLAS: PyTorch's default on cards before Hopper, 2 x 4 MiB and 8 x 16 KiB. cuDNN: of the
# convolution at hand. Context: of the driver, with the kernels that are loaded.
CUBLAS_WORKSPACE = 2 * 4 * MIB + MIB // 8
CUDNN_WORKSPACE = 64 * MIB
CONTEXT = 400 * MIB
LARGEST = 10
WEIGHTS, OPTIMIZER, GRADIENTS, IMAGES = "weights", "optimizer", "gradients", "data"
WORKSPACE, POOLS, ALLOCATOR, CONTEXT_CATEGORY = "workspace", "graph pools", "allocator", "context"
CATEGORIES = (
    WEIGHTS, OPTIMIZER, GRADIENTS, SAVED, TEMPORARY, IMAGES, WORKSPACE, POOLS, ALLOCATOR, CONTEXT_CATEGORY
)  # fmt: skip


@dataclass(frozen=True)
class PhasePeak:
    """Bytes at a phase's peak: of live tensors, and what PyTorch has reserved by then (workspace not included)."""

    live: int
    reserved: int


@dataclass(frozen=True)
class Moment:
    """After an event: live bytes of the common pool and of the graph's, and what either has reserved."""

    phase: str
    live: int
    live_in_graph: int
    reserved: int
    reserved_by_graph: int

    @property
    def needed(self) -> int:
        """Bytes that this moment cannot do without: a graph's pool is held whole while something else runs."""
        return self.live + (self.live_in_graph if self.phase in ITERATION else self.reserved_by_graph)


@dataclass(frozen=True)
class Plan:
    """The recorded run, and what follows from it.

    Attributes:
        graph: whether the iteration is captured.
        expandable: whether PyTorch's segments are expandable.
        workspace: bytes assumed for cuBLAS and cuDNN.
    """

    storages: list[Storage]
    events: list[Event]
    graph: bool
    expandable: bool = False
    workspace: int = CUBLAS_WORKSPACE + CUDNN_WORKSPACE

    @cached_property
    def moments(self) -> list[Moment]:
        """One for each event."""
        kind = ExpandableAllocator if self.expandable else CachingAllocator
        common, private = kind(), kind()
        moments = []
        for event in self.events:
            storage = self.storages[event.storage]
            pool = private if self.graph and storage.phase in ITERATION else common
            pool.allocate(event.storage, storage.bytes) if event.comes else pool.free(event.storage)
            moments.append(Moment(event.phase, common.allocated, private.allocated, common.reserved, private.reserved))
        return moments

    @cached_property
    def peak_index(self) -> int:
        """The event at which most is needed."""
        return max(range(len(self.moments)), key=lambda index: self.moments[index].needed)

    def peak_live(self) -> int:
        """Bytes that are needed at most at one moment, before any rounding to segments (context not included)."""
        return self.moments[self.peak_index].needed

    @property
    def reserved(self) -> int:
        """Bytes that PyTorch reserves at most: what ``torch.cuda.max_memory_reserved`` is compared with."""
        last = self.moments[-1]
        return last.reserved + last.reserved_by_graph + self.workspace

    @property
    def peak(self) -> int:
        """Bytes of the card that the run takes at most, context included."""
        return self.reserved + CONTEXT

    def phases(self) -> dict[str, PhasePeak]:
        """In order; a phase in which nothing comes or goes holds what the one before has left."""
        peaks, before = {}, self.moments[0]
        for name in PHASES:
            own = [moment for moment in self.moments if moment.phase == name] or [before]
            before = own[-1]
            peaks[name] = PhasePeak(
                max(moment.live + moment.live_in_graph for moment in own), before.reserved + before.reserved_by_graph
            )
        return peaks

    def alive(self) -> list[Storage]:
        """The storages at the peak, largest first."""
        alive: set[int] = set()
        for event in self.events[: self.peak_index + 1]:
            (alive.add if event.comes else alive.remove)(event.storage)
        return sorted((self.storages[number] for number in alive), key=lambda storage: -storage.bytes)

    def categories(self) -> dict[str, int]:
        """Bytes by category; they add up to ``peak``."""
        sums = dict.fromkeys(CATEGORIES, 0)
        for storage in self.alive():
            sums[storage.category] += storage.bytes
        at, last = self.moments[self.peak_index], self.moments[-1]
        sums[WORKSPACE], sums[CONTEXT_CATEGORY] = self.workspace, CONTEXT
        sums[POOLS] = last.reserved_by_graph - at.live_in_graph
        sums[ALLOCATOR] = self.peak - sum(sums.values())  # rounding of blocks and segments, free pieces between
        return sums

    def largest(self, count: int = LARGEST) -> list[Storage]:
        return self.alive()[:count]

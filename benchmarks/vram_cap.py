"""A few training iterations of the engine on a GPU whose memory is capped at a smaller card's, and the peak.

    python benchmarks/vram_cap.py --gib 8 --im-size 1024 [--json F]

The cap is the allocator's (`torch.cuda.set_per_process_memory_fraction`): CUDA's context, about 0.5 GiB, comes on top,
and is taken off the cap here. LPIPS has random weights. Where memory runs out this says so and exits with 1.
"""

import argparse
import json
import sys
from pathlib import Path

CONTEXT_GIB = 0.5
ITERATIONS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, required=True, help="memory of the card to stand in for")
    parser.add_argument("--im-size", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = capped(arguments.gib, arguments.im_size, arguments.batch)
    print(json.dumps(figures, indent=2), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if figures["fits"] else 1)


def capped(gib: float, im_size: int, batch: int) -> dict[str, object]:
    """Trains under the cap; what the allocator reserved at most, GiB."""
    import torch

    from fastgan_engine.bench.contenders import Engine
    from fastgan_engine.build import set_backends
    from fastgan_engine.config import resolve
    from fastgan_engine.hardware import pick_dtype

    figures: dict[str, object] = {"card_gib": gib, "im_size": im_size, "batch": batch, "fits": False}
    if not torch.cuda.is_available():
        return figures | {"error": "no CUDA device"}
    device = torch.device("cuda", 0)
    config = resolve(flags={"model.im_size": im_size, "train.batch": batch, "engine.device": "cuda:0"})
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((gib - CONTEXT_GIB) * 2**30 / total, device)
    set_backends(config)
    try:
        engine = Engine(config, device, pick_dtype("auto", device))
        for _ in range(ITERATIONS):
            engine.run(torch.zeros(batch, 3, im_size, im_size, device=device))
        torch.cuda.synchronize(device)
    except torch.cuda.OutOfMemoryError as error:
        return figures | {"error": str(error).splitlines()[0]}
    peaks = {
        "peak_reserved_gib": torch.cuda.max_memory_reserved(device) / 2**30,
        "peak_allocated_gib": torch.cuda.max_memory_allocated(device) / 2**30,
    }
    return figures | {"fits": True} | peaks


if __name__ == "__main__":
    main()

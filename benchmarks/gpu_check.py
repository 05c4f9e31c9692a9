"""Everything worth running on a GPU, the most important first, in under eight minutes.

    python benchmarks/gpu_check.py [--out benchmarks/results/NAME] [--minutes 8]

Each part prints as it goes and leaves its output (and figures as JSON) in the folder; a part that fails or runs out of
time does not stop the next. Needs PyTorch with CUDA, Triton and pytest; the package need not be installed.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLI = [sys.executable, "-m", "fastgan_engine"]
GPU_TESTS = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]


@dataclass(frozen=True)
class Part:
    """A command, and the most seconds it may take."""

    name: str
    command: list[str]
    seconds: int


def parts(out: Path) -> list[Part]:
    def throughput(im_size: int, iterations: int) -> list[str]:
        return [
            *CLI, "bench", "throughput", "--compare", "reference,compile,engine", "--im-size", str(im_size),
            "--iterations", str(iterations), "--json", str(out / f"throughput-{im_size}.json"),
        ]  # fmt: skip

    return [
        Part("step", [*GPU_TESTS, "tests/engine"], 90),
        Part("throughput-256", throughput(256, 50), 150),
        Part("kernel-tests", [*GPU_TESTS, "tests/kernels"], 120),
        Part("kernels", [*CLI, "bench", "kernels", "--json", str(out / "kernels.json")], 90),
        Part("throughput-1024", throughput(1024, 20), 150),
    ]


def run(part: Part, out: Path, seconds: float) -> dict[str, object]:
    """Runs one part, its output shown and kept."""
    print(f"\n=== {part.name}: {' '.join(part.command)}", flush=True)
    begin = time.perf_counter()
    with (out / f"{part.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            part.command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        timer = _end_after(process, seconds)
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line)
        code = process.wait()
        timer.cancel()
    elapsed = time.perf_counter() - begin
    return {"part": part.name, "exit": code, "seconds": round(elapsed, 1), "out_of_time": elapsed >= seconds}


def _end_after(process: subprocess.Popen[str], seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    return timer


def environment() -> dict[str, str]:
    """The package assembled through links, for a machine on which it is not installed."""
    package = ROOT / "build" / "package" / "fastgan_engine"
    package.mkdir(parents=True, exist_ok=True)
    for source in (*(ROOT / "engine").iterdir(), *(ROOT / name for name in ("kernels", "pipelines", "profiles"))):
        link = package / source.name
        if not link.exists():
            link.symlink_to(source)
    path = os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def machine() -> dict[str, object]:
    import torch
    import triton

    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": triton.__version__,
        "python": sys.version.split()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "latest")
    parser.add_argument("--minutes", type=float, default=8.0)
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.perf_counter() + arguments.minutes * 60
    report: dict[str, object] = {"machine": machine(), "parts": []}
    print(json.dumps(report["machine"]), flush=True)
    results: list[dict[str, object]] = []
    for part in parts(out):
        left = deadline - time.perf_counter()
        if left < 5:
            results.append({"part": part.name, "skipped": "no time left"})
        else:
            results.append(run(part, out, min(part.seconds, left)))
        report["parts"] = results
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print("\n=== summary")
    for result in results:
        print(result)


if __name__ == "__main__":
    main()

"""Everything worth running on a GPU, the most important first, in under eight minutes.

    python benchmarks/gpu_check.py [--out benchmarks/results/NAME] [--minutes 8] [--wheels DIR] [--dry-run]

Each part prints as it goes and leaves its output (and figures as JSON) in the folder; a part that fails, runs out of
time or lacks a package does not stop the next. Needs PyTorch with CUDA; the package need not be installed. What is
missing is said at the start; `--wheels DIR` installs wheels from a folder first, without any network.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "build" / "package" / "fastgan_engine"
CLI = [sys.executable, "-m", "fastgan_engine"]
# A test module that cannot be imported here (hypothesis is missing) must not keep the others from running.
GPU_TESTS = [
    sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors",
]  # fmt: skip
# Without these nothing of the engine runs; the LPIPS loss needs more, and some tests.
CORE = ("torch", "pydantic", "typer", "rich", "numpy", "PIL", "safetensors")
LPIPS = (*CORE, "lpips", "torchvision")
OPTIONAL = ("triton", "nvidia.dali", "tensorboard", "pynvml", "pytest", "hypothesis", "matplotlib", "torch_fidelity")


def link_package() -> None:
    """Assembles the package through links, for a machine on which it is not installed, and makes it importable."""
    PACKAGE.mkdir(parents=True, exist_ok=True)
    for source in (*(ROOT / "engine").iterdir(), *(ROOT / name for name in ("kernels", "pipelines", "profiles"))):
        link = PACKAGE / source.name
        if not link.exists():
            link.symlink_to(source)
    sys.path.insert(0, str(PACKAGE.parent))


link_package()
from fastgan_engine.bench.parts import Part, outcome, run_part  # noqa: E402 - only now can it be found


def parts(out: Path) -> list[Part]:
    """What to run, the most important first."""

    def bench(name: str, *arguments: str) -> list[str]:
        return [*CLI, "bench", *arguments, "--json", str(out / f"{name}.json")]

    def throughput(name: str, im_size: int, iterations: int, *, compare: str) -> Part:
        command = bench(name, "throughput", "--compare", compare, "--im-size", str(im_size))
        return Part(name, [*command, "--iterations", str(iterations)], 120, LPIPS)

    def capped(gib: int, im_size: int) -> Part:
        name = f"vram-{gib}gib-{im_size}"
        script = str(ROOT / "benchmarks" / "vram_cap.py")
        command = [sys.executable, script, "--gib", str(gib), "--im-size", str(im_size)]
        return Part(name, [*command, "--json", str(out / f"{name}.json")], 45, LPIPS)

    jpeg_1024 = ("--im-size", "1024", "--set", "data.encoding=jpeg", "--step-ms", "65")
    quality = ("quality", "--steps", "300", "--im-size", "256", "--set", "loss.reconstruction=l1")
    return [
        Part("step", [*GPU_TESTS, "tests/engine"], 90, (*CORE, "pytest")),
        throughput("throughput-256", 256, 50, compare="reference,engine"),
        Part("kernel-tests", [*GPU_TESTS, "tests/kernels"], 120, (*CORE, "pytest", "triton")),
        capped(8, 1024),
        capped(4, 256),
        throughput("throughput-1024", 1024, 20, compare="reference,engine"),
        Part("quality", bench("quality", *quality), 90, CORE),
        Part("vram", bench("vram", "vram", "--compare", "reference,engine", "--im-size", "256,1024"), 90, LPIPS),
        throughput("compile-256", 256, 30, compare="compile,engine"),
        Part("data", bench("data", "data", "--im-size", "256", "--step-ms", "10"), 45, CORE),
        Part("pipeline-tests", [*GPU_TESTS, "tests/pipelines"], 45, (*CORE, "pytest", "nvidia.dali")),
        Part("data-1024", bench("data-1024", "data", *jpeg_1024), 60, (*CORE, "nvidia.dali")),
        Part("kernels", bench("kernels", "kernels"), 90, (*CORE, "triton")),
        capped(8, 256),
        capped(4, 1024),
        Part("ablation", bench("ablation", "ablation", "--no-count", "--iterations", "10"), 240, (*LPIPS, "triton")),
    ]


def missing(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if not _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package above it
        return False


def install(wheels: Path) -> str:
    """Installs every wheel of a folder, without an index and without what they depend on; says how that went."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        return f"no wheels in {wheels}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    importlib.invalidate_caches()
    return f"installed {len(files)} wheels" if done.returncode == 0 else f"pip failed: {done.stderr.strip()[-500:]}"


def machine() -> dict[str, object]:
    """Facts for the report; none of them is needed to go on."""
    facts: dict[str, object] = {"python": sys.version.split()[0]}
    for name in ("torch", "triton", "numpy"):
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = None
    if missing(("torch",)):
        return facts
    import torch

    facts |= {"cuda": torch.version.cuda, "gpu": None}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "latest")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--wheels", type=Path, help="install the wheels of this folder first")
    parser.add_argument("--only", help="comma list of parts")
    parser.add_argument("--dry-run", action="store_true", help="list the parts and what they lack, run nothing")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    deadline = time.perf_counter() + arguments.minutes * 60
    if arguments.wheels is not None and not arguments.dry_run:
        print(install(arguments.wheels), flush=True)
    wanted = arguments.only.split(",") if arguments.only else None
    chosen = [part for part in parts(out) if wanted is None or part.name in wanted]
    facts = machine()
    lacking = missing((*CORE, "lpips", "torchvision", *OPTIONAL))
    print(json.dumps(facts), flush=True)
    print(f"missing: {', '.join(lacking) or 'nothing'}", flush=True)
    if arguments.dry_run:
        for part in chosen:
            lacks = f"   skipped: needs {', '.join(part.missing)}" if part.missing else ""
            print(f"{part.name:<18}up to {part.seconds:>4.0f} s   {' '.join(part.command)}{lacks}")
        return
    run(chosen, out, deadline, {"machine": facts, "missing": lacking})


def run(chosen: list[Part], out: Path, deadline: float, report: dict[str, object]) -> None:
    """Runs the parts until the time is over; the report is written anew after each."""
    out.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    results = []
    for part in chosen:
        left = deadline - time.perf_counter()
        results.append(run_part(part, out, seconds=left, cwd=ROOT, environment=environment))
        text = json.dumps(report | {"parts": results}, indent=2)
        (out / "report.json").write_text(text + "\n", encoding="utf-8")
    print("\n=== summary")
    for result in results:
        print(f"{result['part']:<18}{outcome(result)}")


if __name__ == "__main__":
    main()

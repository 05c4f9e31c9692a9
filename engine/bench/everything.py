"""``bench all``: every benchmark that this machine can run, into one folder with an index."""

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgan_engine.atomic import atomic_write
from fastgan_engine.bench.parts import Part, outcome, run_part

INDEX = "index.md"
REPORT = "report.json"
CLI = (sys.executable, "-m", "fastgan_engine", "bench")
# Most seconds a part may take.
QUICK_SECONDS, SECONDS = 240.0, 1_800.0


def parts(out: Path, commands: Collection[str], *, quick: bool, cuda: bool) -> list[Part]:
    """What to run on this machine, in order; ``commands`` are those that ``bench`` has.

    quick: 64 x 64 and narrow networks on a CPU, 256 on a GPU.
    """
    size, wide = ("256", "256,512,1024") if cuda else ("64", "256")
    sizes = size if quick else wide
    small = ["--set", "model.ngf=16", "--set", "model.ndf=16"] if quick and not cuda else []
    light = ["--reconstruction", "l1"] if quick and not cuda else []
    rivals = "reference,compile,engine" if cuda else "reference,engine"
    few = ["--iterations", "3"] if quick else []
    arguments: dict[str, list[str]] = {
        "throughput": ["--compare", rivals, "--im-size", sizes, *few, *light, *small, "--plot"],
        "vram": ["--im-size", sizes, "--plot"],
        "data": ["--im-size", sizes, *(["--step-ms", "300"] if light else []), *small, "--plot"],
        "table1": ["--im-size", "256,1024" if cuda else "256", "--plot"],
        "single": [],
        "quality": ["--im-size", size, *(["--quick"] if quick else []), "--plot"],
        "cost": ["--im-size", size],
        "saved": ["--im-size", size],
        "ablation": ["--im-size", size],
        "kernels": [] if cuda else ["--compile-only"],
    }
    slow = {"ablation", "table1", "single"} | (set() if cuda else {"kernels", "cost"})
    return [
        Part(name, _command(out, name, more), QUICK_SECONDS if quick else SECONDS, _needs(name, more))
        for name, more in arguments.items()
        if name in commands and not (quick and name in slow)
    ]


def _command(out: Path, name: str, arguments: Sequence[str]) -> list[str]:
    """``--plot`` comes last where there is one; its file follows."""
    picture = [str(out / f"{name}.png")] if "--plot" in arguments else []
    return [*CLI, name, *arguments, *picture, "--json", str(out / f"{name}.json")]


def _needs(name: str, arguments: Sequence[str]) -> list[str]:
    counted = ["triton"] if name in ("cost", "saved", "ablation", "kernels") else []
    return counted + (["matplotlib"] if "--plot" in arguments else [])


def run_all(chosen: Sequence[Part], out: Path, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Runs the parts; the index is written anew after each, so that it is there whatever happens."""
    out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for part in chosen:
        results.append(run_part(part, out, seconds=part.seconds))
        _write(out / INDEX, index(out, chosen, results, facts))
        _write(out / REPORT, json.dumps({"machine": dict(facts), "parts": results}, indent=2) + "\n")
    return results


def index(out: Path, chosen: Sequence[Part], results: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """A table in Markdown: what ran, how it ended, and where its figures are."""
    lines = ["# Benchmarks", "", ", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    lines += ["| benchmark | outcome | figures | plot | output |", "|---|---|---|---|---|"]
    for part, result in zip(chosen, results, strict=False):
        files = [f"{part.name}.{suffix}" for suffix in ("json", "png", "log")]
        links = [f"[{file}]({file})" if (out / file).exists() else "" for file in files]
        lines.append(f"| {part.name} | {outcome(result)} | {' | '.join(links)} |")
    pictures = [f"{part.name}.png" for part in chosen if (out / f"{part.name}.png").exists()]
    for picture in pictures:
        lines += ["", f"![{picture.removesuffix('.png')}]({picture})"]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

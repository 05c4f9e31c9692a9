"""Package definition: four top-level folders install as one import package, ``fastgan_engine``."""

from pathlib import Path

from setuptools import setup

PACKAGE_DIR = {
    "fastgan_engine": "engine",
    "fastgan_engine.kernels": "kernels",
    "fastgan_engine.pipelines": "pipelines",
    "fastgan_engine.profiles": "profiles",
}


def find_packages() -> list[str]:
    """Every folder with an ``__init__.py`` below the four roots, as a dotted name."""
    names = []
    for package, root in PACKAGE_DIR.items():
        for init in sorted(Path(__file__).parent.joinpath(root).rglob("__init__.py")):
            below = init.parent.relative_to(Path(__file__).parent / root).parts
            names.append(".".join((package, *below)))
    return names


# What single commands need beside the engine; engine/extras.py names the extra where one is missing.
EXTRAS = {
    "metrics": ["torch-fidelity>=0.4"],  # evaluate
    "bench": ["matplotlib>=3.8"],  # the plots of bench
    "video": ["imageio>=2.34", "imageio-ffmpeg>=0.5"],  # interpolate, single animate
    "onnx": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.3"],  # export
    "ui": ["gradio>=6", "imageio>=2.34", "imageio-ffmpeg>=0.5"],
}

LINUX = 'sys_platform == "linux" and platform_machine == "x86_64"'

setup(
    name="fastgan-engine",
    version="0.1.0",
    description="The training engine that makes FastGAN fast on an 8 GB consumer card",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(),
    package_dir=PACKAGE_DIR,
    package_data={
        "fastgan_engine": ["py.typed"],
        "fastgan_engine.html": ["*.jinja", "*.css", "*.js"],
        "fastgan_engine.profiles": ["*.toml"],
    },
    install_requires=[
        "torch>=2.7",
        "torchvision>=0.22",
        f"triton>=3.3; {LINUX}",
        f"nvidia-dali-cuda130>=2.1; {LINUX}",
        "numpy>=1.26",
        "pillow>=10.3",
        "pydantic>=2.7",
        "typer>=0.19",
        "rich>=13.7",
        "safetensors>=0.4.3",
        "tensorboard>=2.16",
        "lpips>=0.1.4",
        "jinja2>=3.1",
        "nvidia-ml-py>=12.560",
    ],
    extras_require={
        **EXTRAS,
        "all": sorted({requirement for extra in EXTRAS.values() for requirement in extra}),
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "scipy>=1.11",
            "ruff>=0.9",
            "mypy>=1.14",
            "playwright>=1.45",
        ],
    },
    entry_points={"console_scripts": ["fastgan-engine = fastgan_engine.cli:main"]},
)

"""``fastgan-engine bench``: the engine measured against the released recipe.

A module a command, or a few alike; the library is ``fastgan_engine.bench``.
"""

import typer

from fastgan_engine.cli.bench import (
    counted,
    data,
    everything,
    kernels,
    quality,
    single,
    table1,
    table2,
    throughput,
    vram,
)

app = typer.Typer(help="Measure the engine against the released recipe.", no_args_is_help=True)
app.command()(throughput.throughput)
app.command()(data.data)
app.command()(quality.quality)
app.command()(vram.vram)
app.command()(table1.table1)
app.command()(table2.table2)
app.command()(single.single)
app.command()(kernels.kernels)
app.command()(counted.cost)
app.command()(counted.ablation)
app.command()(counted.saved)
app.command("all")(everything.everything)

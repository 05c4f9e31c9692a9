"""``fastgan-engine single``: one image is enough. The library is ``fastgan_engine.single``."""

import typer

from fastgan_engine.cli.single import train, use

app = typer.Typer(help="Train on one image (ConSinGAN), and use what was trained.", no_args_is_help=True)
app.command()(train.train)
app.command()(use.generate)
app.command()(use.retarget)
app.command()(use.animate)
app.command()(use.harmonize)
app.command()(use.edit)

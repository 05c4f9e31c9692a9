"""Every default of the data path, once. Standard library only: the command line's help reads them."""

from typing import Literal, get_args

Fit = Literal["squash", "crop", "pad"]
Loader = Literal["auto", "dali", "pillow"]
Encoding = Literal["lossless", "jpeg"]

FITS: tuple[Fit, ...] = get_args(Fit)
LOADERS: tuple[Loader, ...] = get_args(Loader)
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
CHANNEL_COUNTS = (1, 3, 4)

IM_SIZE = 256  # pixels on each side
CHANNELS = 3
FIT: Fit = "squash"  # what FastGAN's released code does to an image that is not square
BACKGROUND = "white"  # under transparent pixels and around padded ones
ENCODING: Encoding = "lossless"  # of what is not a JPEG of the right size and kind already

LOADER: Loader = "auto"
WORKERS = 2  # decoding threads
PREFETCH = 2  # batches made ahead of the one in use
FLIP = True

DEMO_COUNT = 100
DEMO_SIZE = 256  # pixels on each side
DEMO_SEED = 0

"""A decoded image -> exactly ``im_size`` x ``im_size`` pixels with 1, 3 or 4 channels."""

from PIL import Image, ImageColor

from .decode import REDUCING_GAP, Decoded, to_srgb
from .defaults import Fit
from .errors import DataError

Colour = tuple[int, int, int]

_OUTPUT_MODE = {1: "L", 3: "RGB", 4: "RGBA"}


def parse_colour(background: str | tuple[int, ...]) -> Colour:
    """A colour name, ``#rrggbb``, ``rgb(r, g, b)`` or three numbers from 0 to 255.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(background, str):
        try:
            return ImageColor.getrgb(background)[:3]
        except ValueError:
            values: tuple[int, ...] = ()
    else:
        values = tuple(background)
    if len(values) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in values):
        raise DataError(
            f"background {background!r}: expected a colour such as white, #fff8e0 or three numbers from 0 to 255"
        )
    red, green, blue = values
    return red, green, blue


def fit_image(decoded: Decoded, *, im_size: int, channels: int, fit: Fit, background: Colour) -> Image.Image:
    """The training image: ``im_size`` x ``im_size``, mode L, RGB or RGBA for 1, 3 or 4 ``channels``.

    ``squash`` scales each side alone, ``crop`` keeps the central square, ``pad`` adds ``background`` (transparent for 4
    channels). Resampling is Lanczos, on premultiplied colours where there is alpha. With 4 channels a fully transparent
    pixel takes the background's colour, since what files hide there is arbitrary.
    """
    image = to_srgb(_resize(decoded.image, im_size, fit), decoded.icc)
    backdrop = Image.new("RGBA", (im_size, im_size), (*background, 0 if channels == 4 else 255))
    offset = ((im_size - image.width) // 2, (im_size - image.height) // 2)
    backdrop.alpha_composite(image.convert("RGBA"), offset)
    return backdrop.convert(_OUTPUT_MODE[channels])


def _resize(image: Image.Image, im_size: int, fit: Fit) -> Image.Image:
    size, box = (im_size, im_size), None
    width, height = image.size
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    elif fit == "pad":
        scale = im_size / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)

"""bytes -> pixels: the one decoder that EDA, training, evaluation and serving share.

JPEG, PNG, WebP, BMP, GIF and TIFF become upright `uint8 [H, W, 3]` RGB: EXIF orientation applied,
palettes expanded, alpha laid over white, grey and 16-bit and CMYK converted, the first frame of
animations. JPEGs decode at a reduced scale where the target is small. Every way in which a picture
can be bad is a `BadImage`; nothing here raises anything else for bad bytes.
"""

import io
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from imgcls.errors import BadImage, BrokenImage, EmptyImage, ImageTooLarge, UnsupportedImage
from imgcls.jpeg import EXIF, PlainHeads, check_scans, is_jpeg

if TYPE_CHECKING:
    from imgcls.card import Preprocessing

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
)
_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"GIF8"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
)
"""With which files of `FORMATS` begin."""
_ORIENTATION_TAG = 0x0112
_MAX_SIDE = 65_535
"""A JPEG's own limit. Pillow pays for every row, however short."""
_EXIF_SEARCH = 128 * 1024
"""Bytes at the head of a JPEG in which its EXIF segment is looked for."""
_QUICK_BYTES, _QUICK_PIXELS = 2**14, 2**15
"""Files and pictures up to which any number of scans is soon decoded."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header says: format, and the sides in pixels of the upright picture."""

    format: str
    width: int
    height: int


def probe(data: bytes, *, max_pixels: int | None = None) -> ImageInfo:
    """Format and upright size from the header alone. Raises `BadImage`."""
    if is_jpeg(data) and (header := _jpeg_header(data)) is not None:
        height, width = header[:2]
        _check_pixels(width, height, max_pixels)
        if _jpeg_orientation(data) >= 5:
            height, width = width, height
        return ImageInfo("JPEG", width, height)
    with _open(data, max_pixels) as image:
        width, height = image.size
        # Pillow gives the size of a TIFF as it lies upright, of the others as it is stored.
        if image.format != "TIFF" and _orientation(image) >= 5:
            height, width = width, height
        return ImageInfo(str(image.format), width, height)


def decode(
    data: bytes, *, min_size: tuple[int, int] | None = None, max_pixels: int | None = None
) -> Pixels:
    """Decode an encoded image into upright `uint8 [H, W, 3]` RGB.

    `min_size` is `(height, width)`: a JPEG may then come back smaller than it is, by a factor of
    its own transform (1/2, 1/4, 1/8 and steps between), yet never under that size. `max_pixels`
    (default: the setting) is checked against the header before anything is decoded.

    Raises `EmptyImage`, `UnsupportedImage`, `BrokenImage` or `ImageTooLarge`.
    """
    if is_jpeg(data):
        if (pixels := _decode_jpeg(data, min_size, max_pixels)) is not None:
            return pixels
        check_scans(data)
    with _open(data, max_pixels) as image:
        try:
            if image.format == "JPEG" and min_size is not None:
                height, width = min_size
                if _orientation(image) >= 5:
                    height, width = width, height
                image.draft(None, (width, height))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return np.ascontiguousarray(_to_rgb(ImageOps.exif_transpose(image)))
        except MemoryError:
            raise
        except Exception as err:  # a decoder given hostile bytes may raise anything
            raise BrokenImage(
                f"The {image.format} image is damaged or cut short: {_reason(err)}"
            ) from err


def decode_into(data: bytes, out: Pixels, heads: PlainHeads) -> bool:
    """Decode a small plain JPEG into `out`: contiguous `uint8 [H, W, 3]`, at most 32,768 pixels.

    False where the picture has another shape or is not upright, of three colours, and small: it is
    then left to `decode`, which gives the same pixels and takes twice as long for 32 x 32. `heads`
    are those met before.
    """
    if len(data) > _QUICK_BYTES or not heads.holds(data):
        return False
    try:
        # A larger picture is refused before it is decoded: the buffer is too small.
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    except ValueError:
        return False
    return pixels.shape == out.shape


def resize(pixels: Pixels, preprocessing: "Preprocessing") -> Pixels:
    """Bring `uint8 [H, W, 3]` to the model's size, antialiased bilinear."""
    height, width = preprocessing.height, preprocessing.width
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels)
    if preprocessing.resize == "stretch":
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    elif preprocessing.resize == "pad":
        image = ImageOps.pad(image, (width, height), Image.Resampling.BILINEAR, color="white")
    else:
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def load(data: bytes, preprocessing: "Preprocessing", *, max_pixels: int | None = None) -> Pixels:
    """Encoded image to the model's `uint8 [height, width, 3]`: decode, then resize."""
    size = (preprocessing.height, preprocessing.width)
    return resize(decode(data, min_size=size, max_pixels=max_pixels), preprocessing)


def check_signature(head: bytes) -> None:
    """Raise `UnsupportedImage` where the first 64 bytes of a file are those of no picture."""
    if not head.startswith(_SIGNATURES):
        raise _unsupported()


def _unsupported() -> UnsupportedImage:
    return UnsupportedImage(
        f"The file is not an image that can be read; supported: {', '.join(FORMATS)}."
    )


def _jpeg_header(data: bytes) -> tuple[int, int, str] | None:
    """Height, width and colour space; None leaves the file to Pillow, which forgives more."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return None if colorspace in ("CMYK", "YCCK") else (height, width, colorspace)


def _decode_jpeg(
    data: bytes, min_size: tuple[int, int] | None, max_pixels: int | None
) -> Pixels | None:
    header = _jpeg_header(data)
    if header is None:
        return None
    _check_pixels(header[1], header[0], max_pixels)
    if len(data) > _QUICK_BYTES or header[0] * header[1] > _QUICK_PIXELS:
        check_scans(data)
    orientation = _jpeg_orientation(data)
    min_height, min_width = min_size or (0, 0)
    if orientation >= 5:
        min_height, min_width = min_width, min_height
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=min_height, min_width=min_width
        )
    except ValueError:
        return None
    return _upright(pixels, orientation)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation (1 to 8, TIFF 6.0 tag 274)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _jpeg_orientation(data: bytes) -> int:
    # Most JPEGs carry no EXIF; a search is far cheaper than opening the file a second time.
    if data.find(EXIF, 0, _EXIF_SEARCH) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return _orientation(image)
    except Exception:  # hostile EXIF: the picture itself may still be good
        return 1


def _orientation(image: Image.Image) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # hostile EXIF: the picture itself may still be good
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _open(data: bytes, max_pixels: int | None) -> Image.Image:
    if not data:
        raise EmptyImage("The file is empty; send the bytes of an image.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as err:
        raise ImageTooLarge(
            f"The image has far more pixels than the {_most(max_pixels):,} that are accepted. "
            "Send a smaller one."
        ) from err
    except UnidentifiedImageError as err:
        if is_jpeg(data):
            raise BrokenImage("The JPEG image is damaged: its header cannot be read.") from err
        raise _unsupported() from err
    except MemoryError:
        raise
    except Exception as err:  # a decoder given hostile bytes may raise anything
        raise BrokenImage(f"The header of the image is damaged: {_reason(err)}") from err
    try:
        _check_pixels(*image.size, max_pixels)
    except BadImage:
        image.close()
        raise
    return image


def _check_pixels(width: int, height: int, max_pixels: int | None) -> None:
    if max(width, height) > _MAX_SIDE:
        raise ImageTooLarge(
            f"The image has {width} x {height} pixels; at most {_MAX_SIDE:,} a side are accepted."
        )
    if width * height > (most := _most(max_pixels)):
        raise ImageTooLarge(
            f"The image has {width} x {height} pixels; at most {most:,} are accepted. "
            "Send a smaller one."
        )
    if width < 1 or height < 1:
        raise BrokenImage("The image has no pixels.")


def _most(max_pixels: int | None) -> int:
    if max_pixels is None:
        from imgcls.settings import get_settings  # here: the children of a scan do without

        max_pixels = get_settings().max_image_pixels
    return max_pixels


def _to_rgb(image: Image.Image) -> npt.NDArray[Any]:
    if image.mode.startswith("I;16") or image.mode == "I":
        # 16-bit grey; Pillow's own conversion clips to 255 instead of scaling.
        return _grey((np.asarray(image).clip(0, 65_535) >> 8).astype(np.uint8))
    if image.mode == "F":
        # Floating point by convention: 0 to 1, or 0 to 255.
        real = np.nan_to_num(np.asarray(image))
        scale = 255.0 if real.max(initial=0.0) <= 1.0 else 1.0
        return _grey((real * scale).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return np.asarray(white)
    return np.asarray(image.convert("RGB"))


def _grey(values: Pixels) -> Pixels:
    return np.repeat(values[:, :, None], 3, axis=2)


def _reason(err: Exception) -> str:
    """The decoder's own words, without memory addresses or line breaks."""
    text = re.sub(r"<[^>]*>", "the file", str(err)) or type(err).__name__
    return " ".join(text.split())[:200]

"""The one decoder: every format becomes the same upright RGB, every fault a typed error."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgcls import images
from imgcls.card import Preprocessing
from imgcls.errors import BadImage, BrokenImage, EmptyImage, ImageTooLarge, UnsupportedImage
from imgcls.jpeg import PlainHeads


def smooth(height: int = 60, width: int = 90) -> np.ndarray:
    """A picture without sharp edges, so that lossy codecs stay close to it."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256 // 2], -1).astype(np.uint8)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "JPEG", "WEBP"])
def test_every_format_gives_the_same_picture(format: str) -> None:
    picture = smooth()
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
    data = encode(Image.fromarray(picture), format, **lossless.get(format, {}))
    pixels = images.decode(data)
    assert pixels.shape == picture.shape
    assert pixels.dtype == np.uint8
    tolerance = {"JPEG": 12, "GIF": 40}.get(format, 0)  # a GIF has 256 colours
    assert np.abs(pixels.astype(int) - picture).max() <= tolerance
    assert images.probe(data) == images.ImageInfo(format, 90, 60)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(smooth()), format, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = images.decode(data)
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= 4
    info = images.probe(data)
    assert (info.height, info.width) == upright.shape[:2]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [None, 3, 6])
@pytest.mark.parametrize("size", [(32, 32), (48, 32), (16, 16)])
def test_a_plain_jpeg_of_the_size_of_a_place_is_decoded_there_into_the_same_pixels(
    mode: str, orientation: int | None, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation or 1
    options = {"exif": exif} if orientation else {}
    data = encode(Image.fromarray(smooth(*size)).convert(mode), "JPEG", **options)
    place = np.full((32, 32, 3), 7, np.uint8)
    plain = (mode, orientation, size) in [("RGB", None, (32, 32)), ("L", None, (32, 32))]
    heads = PlainHeads()
    for _ in range(2):  # as a stranger, and with a head that is known
        assert images.decode_into(data, place, heads) == plain
        if plain:
            assert np.array_equal(place, images.decode(data))
    assert not images.decode_into(data[:-100], place, heads)


def test_a_head_that_is_known_lets_no_other_picture_through() -> None:
    """Not even one that begins alike, with what looks like the end of the head."""
    picture = Image.fromarray(smooth(32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    note = b"\xff\xed\0\x10" + b"\xff\xda" * 7  # of 14 bytes, markers as they begin a scan
    plain, turned, four = (
        data[:2] + note + data[2:]
        for data in (
            encode(picture, "JPEG"),
            encode(picture, "JPEG", exif=exif),
            encode(picture.convert("CMYK"), "JPEG"),
        )
    )
    scan = plain.rindex(b"\xff\xda\0\x0c")
    late = plain[:scan] + b"\xff\xe1\0\x22" + exif.tobytes() + plain[scan:]
    heads, place = PlainHeads(), np.empty((32, 32, 3), np.uint8)
    for _ in range(2):
        assert images.decode_into(plain, place, heads)
        assert np.array_equal(place, images.decode(plain))
        for other in (turned, four, late):
            assert not images.decode_into(other, place, heads)


@pytest.mark.parametrize("head", [b"\xff\xda", b"\xff\xff\1\xda", b"\xff\1\0\2\xff\xda", b""])
def test_a_broken_file_lets_no_other_picture_through(head: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(Image.fromarray(smooth(32, 32)), "JPEG", exif=exif)
    four = encode(Image.fromarray(smooth(32, 32)).convert("CMYK"), "JPEG")
    heads, place = PlainHeads(), np.empty((32, 32, 3), np.uint8)
    images.decode_into(b"\xff\xd8" + head + bytes(20), place, heads)
    for data in (turned, four, turned[:2] + head + turned[2:], four[:2] + head + four[2:]):
        assert not images.decode_into(data, place, heads)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_decodes_at_reduced_scale_and_never_below_the_target(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(smooth(1200, 1600)), "JPEG", exif=exif)
    upright = (1200, 1600) if orientation == 1 else (1600, 1200)
    pixels = images.decode(data, min_size=(224, 200))
    assert pixels.shape[0] >= 224
    assert pixels.shape[1] >= 200
    assert pixels.shape[0] * pixels.shape[1] < upright[0] * upright[1] / 8
    assert abs(pixels.shape[0] / pixels.shape[1] - upright[0] / upright[1]) < 0.02


def test_alpha_lies_over_white_in_every_form() -> None:
    clear = np.zeros((4, 4, 4), np.uint8)
    assert (images.decode(encode(Image.fromarray(clear), "PNG")) == 255).all()
    grey = Image.fromarray(np.full((4, 4, 2), [100, 0], np.uint8))
    assert (images.decode(encode(grey, "PNG")) == 255).all()
    palette = Image.new("P", (4, 4), 3)
    assert (images.decode(encode(palette, "GIF", transparency=3)) == 255).all()
    half = np.full((4, 4, 4), [0, 0, 0, 128], np.uint8)
    assert abs(int(images.decode(encode(Image.fromarray(half), "PNG"))[0, 0, 0]) - 127) <= 1


def test_grey_and_16_bit_keep_their_brightness() -> None:
    grey = Image.fromarray(np.full((5, 5), 77, np.uint8))
    assert (images.decode(encode(grey, "PNG")) == 77).all()
    assert np.abs(images.decode(encode(grey, "JPEG")).astype(int) - 77).max() <= 1
    wide = Image.fromarray(np.full((5, 5), 200 * 256, np.uint16))
    for format in ("PNG", "TIFF"):
        assert (images.decode(encode(wide, format)) == 200).all()
    real = Image.fromarray(np.full((5, 5), 0.5, np.float32))
    assert (images.decode(encode(real, "TIFF")) == 127).all()


def test_cmyk_becomes_the_colours_that_pillow_shows() -> None:
    cmyk = Image.fromarray(smooth()).convert("CMYK")
    for format in ("JPEG", "TIFF"):
        data = encode(cmyk, format)
        with Image.open(io.BytesIO(data)) as image:
            shown = np.asarray(image.convert("RGB"))
        assert np.array_equal(images.decode(data), shown)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert (images.decode(data) == [255, 0, 0]).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_file_cut_short_is_refused(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), format)
    for share in (0.05, 0.3, 0.6, 0.9):
        with pytest.raises(BadImage):
            images.decode(data[: int(len(data) * share)])


def test_what_is_no_image_is_refused_by_kind() -> None:
    with pytest.raises(EmptyImage):
        images.decode(b"")
    with pytest.raises(UnsupportedImage):
        images.decode(b"just some text, named .jpg" * 10)
    with pytest.raises(UnsupportedImage):
        images.decode(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    with pytest.raises(BrokenImage):
        images.decode(b"\xff\xd8\xff\xe0" + b"\0" * 100)


def test_random_damage_raises_nothing_but_bad_image() -> None:
    rng = np.random.default_rng(1)
    picture = Image.fromarray(smooth())
    for format in images.FORMATS:
        whole = encode(picture, format)
        for _ in range(60):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 8):
                data[at] = rng.integers(0, 256)
            try:
                pixels = images.decode(bytes(data))
            except BadImage:
                continue
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3


def png_header(width: int, height: int) -> bytes:
    """A PNG of any size in a few bytes: its header is true, its data a run of zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over the picture."""
    data = encode(Image.new("RGB", (640, 480), "gray"), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + data[-2:]


def test_a_jpeg_with_countless_scans_is_refused_before_decoding() -> None:
    assert images.decode(many_scans(20)).shape == (480, 640, 3)
    with pytest.raises(BrokenImage, match="scans"):
        images.decode(many_scans(1000))


def test_what_lies_behind_a_jpeg_is_not_taken_for_scans() -> None:
    film = b"\xff\xda\x00\x02" * 1000
    assert images.decode(many_scans(0) + film).shape == (480, 640, 3)
    thumbnail = b"\xff\xe2" + struct.pack(">H", len(film) + 2) + film
    data = many_scans(0)
    assert images.decode(data[:2] + thumbnail + data[2:]).shape == (480, 640, 3)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    with pytest.raises(ImageTooLarge, match="far more pixels than the 64,000,000"):
        images.decode(png_header(60_000, 60_000))
    with pytest.raises(ImageTooLarge, match="9000 x 9000"):
        images.decode(png_header(9_000, 9_000))
    jpeg = encode(Image.fromarray(smooth()), "JPEG")
    for call in (images.decode, images.probe):
        with pytest.raises(ImageTooLarge):
            call(jpeg, max_pixels=90 * 60 - 1)
        call(jpeg, max_pixels=90 * 60)


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_preprocessing_gives_the_model_its_size(resize: str) -> None:
    preprocessing = Preprocessing(height=16, width=24, resize=resize)  # type: ignore[arg-type]
    data = encode(Image.fromarray(smooth(100, 50)), "PNG")
    assert images.load(data, preprocessing).shape == (16, 24, 3)


def test_pad_keeps_the_whole_picture_and_fills_with_white() -> None:
    black = encode(Image.new("RGB", (10, 40), "black"), "PNG")
    pixels = images.load(black, Preprocessing(height=20, width=20, resize="pad"))
    assert (pixels[:, 0] == 255).all()
    assert (pixels[:, -1] == 255).all()
    assert (pixels[:, 8:12] == 0).all()


def test_crop_keeps_the_middle() -> None:
    picture = np.zeros((30, 90, 3), np.uint8)
    picture[:, 30:60] = 255
    pixels = images.load(
        encode(Image.fromarray(picture), "PNG"), Preprocessing(height=30, width=30, resize="crop")
    )
    assert (pixels == 255).all()


def test_a_tall_and_narrow_image_is_refused_by_its_header() -> None:
    buffer = io.BytesIO()
    Image.new("1", (1, 70_000)).save(buffer, "PNG")
    with pytest.raises(ImageTooLarge, match="a side"):
        images.decode(buffer.getvalue())

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pcd.decode import UnreadableImageError, decode_rgb

CORNERS = {
    "top left": (220, 30, 40),
    "top right": (30, 200, 50),
    "bottom left": (40, 60, 210),
    "bottom right": (230, 220, 40),
}
"""Of an image 40 high and 60 wide, a flat colour for each quarter."""


def _quarters() -> Image.Image:
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    for (row, column), colour in zip(((0, 0), (0, 30), (20, 0), (20, 30)), CORNERS.values(), strict=True):
        pixels[row : row + 20, column : column + 30] = colour
    return Image.fromarray(pixels)


def _encode(image: Image.Image, suffix: str = "jpeg", **options: Any) -> bytearray:
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return bytearray(file.getvalue())


def _colours(pixels: Tensor) -> dict[str, tuple[int, ...]]:
    """In the middle of each quarter."""
    height, width = pixels.shape[1:]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return {name: tuple(pixels[:, y, x].tolist()) for name, (y, x) in zip(CORNERS, places, strict=True)}


def _close(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], levels: int) -> bool:
    return all(abs(a - b) <= levels for name in expected for a, b in zip(found[name], expected[name], strict=True))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}], ids=str)
def test_jpeg_keeps_its_colours(options: dict[str, Any]) -> None:
    assert _close(_colours(decode_rgb(_encode(_quarters(), quality=95, **options))), CORNERS, 4)


def test_jpeg_is_pillows_decoding_bit_for_bit() -> None:
    data = _encode(_quarters().resize((61, 43), Image.Resampling.BICUBIC), quality=80)
    pillows = torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).permute(2, 0, 1)
    assert torch.equal(decode_rgb(data), pillows)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_other_formats_keep_their_colours_exactly(suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    assert _colours(decode_rgb(_encode(_quarters(), suffix, **options))) == CORNERS


@pytest.mark.parametrize("suffix", ["jpeg", "png"])
def test_grey_becomes_three_equal_channels_of_its_values(suffix: str) -> None:
    grey = _quarters().convert("L")
    pixels = decode_rgb(_encode(grey, suffix))
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])
    assert abs(int(pixels[0, 10, 15]) - grey.getpixel((15, 10))) <= 2


def test_cmyk_jpeg_keeps_its_colours() -> None:
    assert _close(_colours(decode_rgb(_encode(_quarters().convert("CMYK"), quality=95))), CORNERS, 6)


@pytest.mark.parametrize("transparent", [None, 0])
def test_palette_keeps_its_colours(transparent: int | None) -> None:
    options = {} if transparent is None else {"transparency": transparent}
    image = _quarters().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    assert _colours(decode_rgb(_encode(image, "png", **options))) == CORNERS


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("webp", {"lossless": True, "exact": True})], ids=str)
def test_transparency_is_dropped_and_the_colours_stay(suffix: str, options: dict[str, Any]) -> None:
    image = _quarters()
    image.putalpha(90)
    assert _colours(decode_rgb(_encode(image, suffix, **options))) == CORNERS


def test_black_and_white_is_black_and_white() -> None:
    image = _quarters().convert("L").point(lambda v: 255 * (v > 100)).convert("1")
    assert set(decode_rgb(_encode(image, "png")).unique().tolist()) == {0, 255}


def test_16_bit_grey_keeps_its_upper_byte() -> None:
    values = np.arange(0, 65536, 32, dtype=np.uint16).reshape(32, 64)
    pixels = decode_rgb(_encode(Image.fromarray(values), "png"))
    assert np.array_equal(pixels[0].numpy(), values >> 8)
    assert torch.equal(pixels[0], pixels[2])


TURNED = {
    1: Image.Transpose.ROTATE_90,  # unused: 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera that notes each EXIF orientation stores the upright image."""


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_is_undone(orientation: int, suffix: str) -> None:
    stored = _quarters() if orientation == 1 else _quarters().transpose(TURNED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_rgb(_encode(stored, suffix, exif=exif, quality=95))
    assert pixels.shape == (3, 40, 60)
    assert _close(_colours(pixels), CORNERS, 12)


@pytest.mark.parametrize("suffix", ["webp", "png", "gif"])
def test_first_frame_of_an_animation_counts(suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    other = _quarters().transpose(Image.Transpose.ROTATE_180)
    data = _encode(_quarters(), suffix, save_all=True, append_images=[other], **options)
    assert _colours(decode_rgb(data)) == CORNERS


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5], ids=["empty", "header", "half"])
def test_truncated_image_is_unreadable(suffix: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    whole = _encode(noise, suffix)
    with pytest.raises(UnreadableImageError):
        decode_rgb(whole[: int(share * len(whole))])


def test_png_with_a_damaged_chunk_is_unreadable() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    data = _encode(noise, "png")  # large enough for several chunks of pixels
    last = data.rindex(b"IDAT")
    data[last : last + 4] = b"\xa3" * 4
    with pytest.raises(UnreadableImageError):
        decode_rgb(data)


def test_bmp_of_absurd_size_is_unreadable() -> None:
    data = _encode(_quarters(), "bmp")
    data[18:26] = (200_000).to_bytes(4, "little") * 2  # width and height in the header
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        decode_rgb(data)


def test_jpeg_of_absurd_size_is_unreadable() -> None:
    data = _encode(_quarters())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff" * 2
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        decode_rgb(data)


@pytest.mark.parametrize("data", [b"no image", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00"], ids=str)
def test_bytes_that_are_no_image_are_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        decode_rgb(bytearray(data))

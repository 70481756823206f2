"""From the bytes of an image file to uint8 ``[C, H, W]`` of one size.

Both by Pillow, which comes with torchvision: its Lanczos filter made miniImageNet and the 28×28 Omniglot of the
literature, and torchvision's own decoders are deprecated. Decoding lets other threads run, so a pool uses every core.
A picture is turned as its EXIF orientation says, and what is transparent is laid on white: what any viewer shows.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
MAX_PIXELS = 80_000_000
CHUNK = 64  # images handed to a thread at once


@dataclass(frozen=True)
class ImageFormat:
    """What an image becomes: ``channels`` (1 or 3), ``size`` (H = W), ``invert`` for dark ink on white paper, and
    ``margin``: resize to ``size + margin`` first, then keep the centre.
    """

    channels: int
    size: int
    invert: bool = False
    margin: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size


Payload = bytes | np.ndarray | Exception  # an encoded image; uint8 [H, W], [H, W, C] decoded or [n] encoded; or why not


def decode(payload: Payload, image_format: ImageFormat) -> np.ndarray:
    """One image, uint8 ``image_format.shape``. Errors: ValueError says why it is none."""
    if isinstance(payload, Exception):
        raise ValueError(str(payload)) from payload
    pixels = (
        payload
        if isinstance(payload, np.ndarray) and payload.ndim > 1
        else _decode_bytes(payload, image_format.channels)
    )
    if isinstance(payload, np.ndarray) and payload.ndim == 2 and 1 in payload.shape:  # as cv2.imencode gives it, [n, 1]
        pixels = _decode_bytes(payload.reshape(-1), image_format.channels)
    if pixels.dtype != np.uint8:
        raise ValueError(f"expected 8-bit pixels, got {pixels.dtype}")
    pixels = _channels(pixels if pixels.ndim == 3 else pixels[..., None], image_format.channels)
    pixels = _resize(pixels, image_format.size + image_format.margin)
    if image_format.margin:
        start = image_format.margin // 2
        pixels = pixels[start : start + image_format.size, start : start + image_format.size]
    pixels = pixels.transpose(2, 0, 1)
    return 255 - pixels if image_format.invert else pixels


def _decode_bytes(payload: bytes | np.ndarray, channels: int) -> np.ndarray:
    """uint8 ``[H, W, C]``. The header is looked at first: one that claims too many pixels gets no room made for it."""
    from PIL import ImageOps

    with _opened(payload) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width}×{height} pixels")
        if image.mode in ("I", "F"):
            raise ValueError(f"32-bit pixels (mode {image.mode}), expected 8 or 16 bits")
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):
            pixels = (np.asarray(image) >> 8).astype(np.uint8)
        else:
            pixels = np.asarray(_opaque(image).convert("L" if channels == 1 else "RGB"))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def size_of(payload: bytes | Exception) -> tuple[int, int]:
    """Width and height of an encoded image, by its header. Errors: ValueError says why it is none."""
    if isinstance(payload, Exception):
        raise ValueError(str(payload)) from payload
    with _opened(payload) as image:
        return image.size


@contextlib.contextmanager
def _opened(payload: bytes | np.ndarray) -> Iterator[Picture]:
    """An encoded image; whatever is wrong with it, here or where it is then read, is a ValueError."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(payload if isinstance(payload, bytes) else payload.tobytes())) as image:
            yield image
    except MemoryError:
        raise
    except Exception as error:  # a damaged picture can make a decoder raise anything
        raise ValueError(str(error).split(" <_io")[0] or "damaged") from error


def _opaque(image: Picture) -> Picture:
    """`image` on white where it is transparent."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)


def _channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3 and pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if channels == 1 and pixels.shape[2] == 3:  # ITU-R 601, as Pillow and torchvision do
        return np.round(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
    raise ValueError(f"expected 1 or 3 channels, got {pixels.shape[2]}")


def _resize(pixels: np.ndarray, size: int) -> np.ndarray:
    if pixels.shape[:2] == (size, size):
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
    resized = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    return resized if resized.ndim == 3 else resized[..., None]


QueuedImage = tuple[int, str, Payload]  # position, name, image
Done = tuple[list[int], np.ndarray, list[tuple[int, str, str]]]  # positions, [n, C, H, W], (position, name, reason)


def _decode_chunk(images_due: list[QueuedImage], image_format: ImageFormat) -> Done:
    images = np.zeros((len(images_due), *image_format.shape), np.uint8)
    bad = []
    for row, (position, name, payload) in enumerate(images_due):
        try:
            images[row] = decode(payload, image_format)
        except ValueError as error:
            bad.append((position, name, str(error)))
    return [position for position, _, _ in images_due], images, bad


def decode_all(
    images_due: Iterable[QueuedImage], image_format: ImageFormat, workers: int | None = None
) -> Iterator[Done]:
    """Decode in parallel, a bounded number of chunks ahead; chunks come back in the order of ``images_due``."""
    workers = workers or os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    pending: deque[Future[Done]] = deque()
    chunk: list[QueuedImage] = []
    try:
        for image in images_due:
            chunk.append(image)
            if len(chunk) == CHUNK:
                pending.append(pool.submit(_decode_chunk, chunk, image_format))
                chunk = []
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
        if chunk:
            pending.append(pool.submit(_decode_chunk, chunk, image_format))
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

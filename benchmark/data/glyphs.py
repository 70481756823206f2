"""The embedded default: letters from the fonts that matplotlib ships, for a benchmark that needs nothing fetched.

A class is a letter, an image is that letter in one of sixteen faces (DejaVu Sans, Mono and Serif, STIX General;
regular, bold and slanted) under one random affine distortion. Letters that are drawn alike (Latin A,
Greek Α, Cyrillic А) are one class; letters that decompose into a base and a mark are left out. Upright and centred, the
letters of two faces nearly coincide and raw pixels solve 87 % of 5-way 1-shot tasks; the distortion takes that down to
40 %, and the rest has to be learned. Support and query of a task come from different faces (the groups of
:mod:`benchmark.data.episodes`).
"""

from __future__ import annotations

import contextlib
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.storage import ClassInfo, Dataset, open_dataset, store
from benchmark.data.writing import writing
from benchmark.errors import UserError

SIZE = 28
EM, FIT = 32.0, 25.0  # pixels of the em square before distortion, and of the longest side that is left as it is
SEED = 2017
RENDERINGS = 4  # distorted images of each letter in each face
MIN_FACES = 10
SPLIT = {"train": 0.64, "val": 0.16, "test": 0.20}
ROTATION, SCALE, SHEAR, SHIFT = 20.0, (0.75, 1.10), 0.25, 2.5  # degrees, factor, factor, pixels
FACES = tuple(
    [f"DejaVu{family}{style}" for family in ("Sans", "SansMono") for style in ("", "-Bold", "-Oblique", "-BoldOblique")]
    + [f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")]
    + [f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")]
)
_INK_CELLS = 32  # cells of the canvas in one rendered sheet, per side


def _fonts() -> list[Any]:
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    folder = Path(get_data_path()) / "fonts" / "ttf"
    fonts = []
    for face in FACES:
        try:
            fonts.append(FT2Font(str(folder / f"{face}.ttf")))
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"matplotlib's font {face}.ttf is missing from {folder}; install matplotlib from its wheel"
            ) from error
        fonts[-1].set_size(EM, 72)  # one point is one pixel
    return fonts


def _letters(fonts: list[Any]) -> list[tuple[int, list[int]]]:
    """(code point, indices of the faces that have it) of every letter without decomposition in at least ten faces."""
    charmaps = [font.get_charmap() for font in fonts]
    found = []
    for code in sorted(set().union(*charmaps)):
        char = chr(code)
        if unicodedata.category(char) in ("Lu", "Ll", "Lt", "Lo") and not unicodedata.decomposition(char):
            faces = [i for i, charmap in enumerate(charmaps) if code in charmap]
            if len(faces) >= MIN_FACES:
                found.append((code, faces))
    return found


def _outline(font: Any, code: int) -> tuple[np.ndarray, np.ndarray]:
    """Unhinted outline in pixels, centred on its bounding box and shrunk to fit: vertices ``[V, 2]`` and path codes."""
    from matplotlib import ft2font

    flags = getattr(ft2font, "LoadFlags", None)  # an enumeration since matplotlib 3.10
    font.load_char(code, flags=flags.NO_HINTING if flags else getattr(ft2font, "LOAD_NO_HINTING"))  # noqa: B009
    vertices, codes = font.get_path()
    vertices = np.asarray(vertices, dtype=np.float64)
    if len(vertices):
        low, high = vertices.min(0), vertices.max(0)
        vertices = (vertices - (low + high) / 2) * min(1.0, FIT / max(float((high - low).max()), 1.0))
    return vertices, np.asarray(codes)


def _draw(outlines: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Anti-aliased bitmaps ``[n, SIZE, SIZE]`` uint8, ink bright, of outlines centred at the origin."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.path import Path as Outline
    from matplotlib.transforms import Affine2D, Bbox

    side, pages = _INK_CELLS * SIZE, []
    for start in range(0, len(outlines), _INK_CELLS**2):
        sheet = RendererAgg(side, side, 72)
        context = sheet.new_gc()
        context.set_linewidth(0.0)
        context.set_antialiased(True)
        page = outlines[start : start + _INK_CELLS**2]
        for cell, (vertices, codes) in enumerate(page):
            row, column = divmod(cell, _INK_CELLS)
            left, bottom = column * SIZE, side - (row + 1) * SIZE
            context.set_clip_rectangle(Bbox.from_bounds(left, bottom, SIZE, SIZE))
            place = Affine2D().translate(left + SIZE / 2, bottom + SIZE / 2)
            sheet.draw_path(context, Outline(vertices, codes), place, (0.0, 0.0, 0.0, 1.0))
        ink = np.asarray(sheet.buffer_rgba())[:, :, 3]  # row 0 on top
        cells = ink.reshape(_INK_CELLS, SIZE, _INK_CELLS, SIZE).swapaxes(1, 2).reshape(-1, SIZE, SIZE)
        pages.append(cells[: len(page)].copy())
    return np.concatenate(pages)


def _merge(letters: list[tuple[int, list[int]]], bitmaps: list[np.ndarray]) -> list[list[int]]:
    """Groups of letters (indices) of which some face draws both with the identical bitmap, transitively."""
    parent = list(range(len(letters)))

    def find(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    seen: dict[tuple[int, bytes], int] = {}
    for i, (_, faces) in enumerate(letters):
        for face, bitmap in zip(faces, bitmaps[i], strict=True):
            j = find(seen.setdefault((face, bitmap.tobytes()), i))
            a, b = sorted((find(i), j))
            parent[b] = a
    groups: dict[int, list[int]] = {}
    for i in range(len(letters)):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())


def _distortions(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices ``[count, 2, 2]`` (rotation · shear · scale) and shifts ``[count, 2]``, uniform in their ranges."""
    u = random.random((5, count))
    angle = np.deg2rad(ROTATION) * (2 * u[0] - 1)
    scale = SCALE[0] + (SCALE[1] - SCALE[0]) * u[1]
    shear = SHEAR * (2 * u[2] - 1)
    cos, sin, one, zero = np.cos(angle), np.sin(angle), np.ones(count), np.zeros(count)
    rotate = np.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)
    slant = np.stack([one, shear, zero, one], -1).reshape(-1, 2, 2)
    return rotate @ slant * scale[:, None, None], SHIFT * (2 * u[3:].T - 1)


def render(*, distort: bool = True, renderings: int = RENDERINGS) -> tuple[np.ndarray, list[ClassInfo], dict[str, Any]]:
    """Images ``[N, 1, 28, 28]``, classes, and what was drawn. The same on every machine with the same fonts."""
    fonts = _fonts()
    letters = _letters(fonts)
    outlines = [[_outline(fonts[face], code) for face in faces] for code, faces in letters]
    flat = _draw([o for per_letter in outlines for o in per_letter])
    bitmaps = np.split(flat, np.cumsum([len(o) for o in outlines])[:-1])
    inked = [i for i, b in enumerate(bitmaps) if b.any(axis=(1, 2)).all()]  # a face may carry an empty glyph
    letters, outlines, bitmaps = ([seq[i] for i in inked] for seq in (letters, outlines, bitmaps))  # type: ignore[assignment]
    merged = _merge(letters, bitmaps)
    random = np.random.Generator(np.random.PCG64(SEED))
    names = np.empty(len(merged), dtype=object)
    order = np.argsort(random.random(len(merged)), kind="stable")
    bounds = np.round(np.cumsum([SPLIT["train"], SPLIT["val"]]) * len(merged)).astype(int)
    for split, part in zip(SPLIT, np.split(order, bounds), strict=True):
        names[part] = split

    classes, drawn, members = [], [], {}
    for split, group in zip(names, merged, strict=True):
        best = max(group, key=lambda i: (len(letters[i][1]), -letters[i][0]))  # the member in most faces stands for all
        name = unicodedata.name(chr(letters[best][0]))
        members[name] = "".join(chr(letters[i][0]) for i in group)
        matrices, shifts = _distortions(random, len(outlines[best]) * renderings)
        if not distort:
            matrices, shifts = np.broadcast_to(np.eye(2), matrices.shape), np.zeros_like(shifts)
        copies = [outline for outline in outlines[best] for _ in range(renderings)]
        drawn += [(v @ m.T + t, c) for (v, c), m, t in zip(copies, matrices, shifts, strict=True)]
        classes.append(ClassInfo(name, str(split), len(copies), (renderings,) * len(outlines[best])))
    info = {
        "source": "matplotlib fonts",
        "faces": list(FACES),
        "renderings": renderings,
        "seed": SEED,
        "distort": distort,
        "members": members,
    }
    return _draw(drawn)[:, None], classes, info


def load_glyphs(root: Path) -> Dataset:
    """The cached set, drawn on first use (and drawn again where the cache is damaged)."""
    for attempt in range(2):
        with contextlib.suppress(UserError):
            if (dataset := open_dataset(root / "glyphs")) is not None:
                return dataset
        if attempt == 0:
            with writing(root, "glyphs") as folder:
                with contextlib.suppress(UserError):  # another process may have drawn them meanwhile
                    if open_dataset(folder) is not None:
                        continue
                images, classes, info = render()
                store(folder, "glyphs", images, classes, info)
    raise UserError(f"the glyphs drawn into {root / 'glyphs'} cannot be read back; choose another --data-root")

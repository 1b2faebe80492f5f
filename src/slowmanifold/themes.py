"""The book's colours on a light and on a dark page, and a renderer that draws in both at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.backend_bases import GraphicsContextBase
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.mathtext import MathTextParser
from PIL import Image

# Okabe and Ito's colours, told apart by colour-blind readers; lifted for the dark page.
CYCLE = {
    "light": ["#0060a8", "#c44e00", "#007a5c", "#a34a85", "#8a6d00", "#2a7fb8", "#4d4d4d"],
    "dark": ["#6cb8f0", "#ff9a4d", "#4fd1a5", "#e59ac8", "#f0d060", "#9bd3f5", "#c8c8c8"],
}
# Ink and paper of the page, as in the style sheet.
INK = {"light": ("#24221e", "#fdfcf9"), "dark": ("#dfdad0", "#17191c")}
# What a colour of the light page is on the dark one; any other colour is the same on both.
DARK = {
    to_rgb(light): to_rgb(dark)
    for light, dark in zip((*CYCLE["light"], *INK["light"]), (*CYCLE["dark"], *INK["dark"]), strict=True)
}
# One parser for all figures, because each remembers the formulas that it parsed, by far the slowest part of a text.
MATHTEXT = MathTextParser("path")
# What a renderer draws, and which of the arguments after the graphics context are colours.
DRAWN = {
    "draw_path": (2,),
    "draw_markers": (4,),
    "draw_path_collection": (5, 6),
    "draw_quad_mesh": (6, 8),
    "draw_gouraud_triangles": (1,),
    "draw_image": (),
    "draw_text": (),
}
# The same where they are given by name.
NAMED = {"rgbFace", "facecolors", "edgecolors", "hatchcolors"}


def style() -> dict[str, Any]:
    """The matplotlib settings of a figure on the light page."""
    ink, paper = INK["light"]
    return {
        "axes.prop_cycle": f"cycler('color', {CYCLE['light']})",
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "figure.facecolor": paper,
        "axes.facecolor": paper,
        "font.size": 10.5,
        "axes.labelsize": 10.5,
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
        "legend.fontsize": 9.5,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "lines.linewidth": 1.6,
        "image.cmap": "viridis",
        "mathtext.fontset": "cm",
    }


def darkened(colours: Any) -> Any:
    """A colour of the light page, or an array (..., 3 or 4) of such, as on the dark one; opacity stays."""
    if colours is None:
        return None
    if isinstance(colours, tuple):
        return (*DARK.get(tuple(colours[:3]), colours[:3]), *colours[3:])
    colours = np.asarray(colours)
    changed = colours.copy()
    if colours.size:
        for light, dark in DARK.items():
            changed[(colours[..., :3] == light).all(-1), :3] = dark
    return changed


class BothThemes(RendererAgg):
    """Draws what it is told, and beside it, on the renderer ``dark``, the same in the colours of the dark page.

    An artist works out once what to draw; only that is done twice.
    """

    def __init__(self, width: float, height: float, dpi: float) -> None:
        super().__init__(width, height, dpi)
        self.dark = RendererAgg(width, height, dpi)
        self.mathtext_parser = self.dark.mathtext_parser = MATHTEXT
        for name, colours in DRAWN.items():
            setattr(self, name, twice(getattr(self, name), getattr(self.dark, name), colours))


class Canvas(FigureCanvasAgg):
    """The canvas of a figure for both pages: it is measured for its layout by the renderer that then draws it."""

    @cached_property
    def both(self) -> BothThemes:
        return BothThemes(*self.figure.bbox.size.round(), self.figure.dpi)

    def get_renderer(self) -> BothThemes:
        return self.both

    def pictures(self) -> dict[str, Image.Image]:
        """Draw the figure; return its picture on each page."""
        self.figure.draw(self.both)
        drawn = {"light": self.both, "dark": self.both.dark}
        return {theme: Image.fromarray(np.asarray(each.buffer_rgba())).convert("RGB") for theme, each in drawn.items()}


def twice(light: Callable[..., None], dark: Callable[..., None], colours: tuple[int, ...]) -> Callable[..., None]:
    """Call ``light`` as it is, then ``dark`` with those of the arguments that are ``colours`` as on the dark page."""

    def draw(gc: GraphicsContextBase, *args: Any, **named: Any) -> None:
        light(gc, *args, **named)
        other = GraphicsContextBase()
        other.copy_properties(gc)
        other.set_foreground(darkened(gc.get_rgb()), isRGBA=True)
        if gc.get_hatch() is not None:
            other.set_hatch_color(darkened(gc.get_hatch_color()))
        named = {name: darkened(value) if name in NAMED else value for name, value in named.items()}
        dark(other, *(darkened(value) if at in colours else value for at, value in enumerate(args)), **named)

    return draw

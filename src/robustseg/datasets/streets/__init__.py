"""Streets: a procedural street video with exact labels, depth, poses and moving objects. The built-in data set.

Reading order: `scene` draws what stands where (from `objects` and `houses`, made of `shapes`) and `look` the light,
`render` finds what each ray meets, `shading` lights it (colours from `materials`, `cars`, `facade`, `ground`, which use
`patterns` and `noise`), `frame` puts one frame together, `dataset` counts frames, `export` writes them to files.
Everything is drawn by rules; no pictures, models or maps are used.
"""

from robustseg.datasets.streets.dataset import SPLITS, Streets, parse_size
from robustseg.datasets.streets.export import export, read_export
from robustseg.datasets.streets.frame import SKY_DEPTH, render

__all__ = ["SKY_DEPTH", "SPLITS", "Streets", "export", "parse_size", "read_export", "render"]

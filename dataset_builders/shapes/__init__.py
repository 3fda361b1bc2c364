"""GroundedShapes: short clips of a world with known truth, made from seeds."""

from .world import ShapesClip, ShapesConfig, clip_name, clip_seed, iter_clips, make_clip
from .writing import write_shapes

__all__ = ["ShapesClip", "ShapesConfig", "clip_name", "clip_seed", "iter_clips", "make_clip", "write_shapes"]

"""A transcript as a picture, drawn by Pillow (extra ``images``)."""

from ors_gym.drawing.frame import FRAME_SHAPE, draw_transcript, require_drawing

__all__ = ["FRAME_SHAPE", "draw_transcript", "require_drawing"]

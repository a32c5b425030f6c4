"""From the blocks of a reply to an observation."""

from ors_gym.observations.images import (
    MAX_PIXELS,
    decode_image,
    read_image_size,
)
from ors_gym.observations.rendering import (
    DecodedBlocks,
    DictObservation,
    decode_blocks,
    describe_block,
    render_dict,
    render_text,
    replace_surrogates,
    truncate,
)

__all__ = [
    "MAX_PIXELS",
    "DecodedBlocks",
    "DictObservation",
    "decode_blocks",
    "decode_image",
    "describe_block",
    "read_image_size",
    "render_dict",
    "render_text",
    "replace_surrogates",
    "truncate",
]

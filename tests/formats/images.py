"""Image files in base64, and blocks that hold them."""

import base64
import io
from typing import Any

from PIL import Image


def encode(image: Image.Image, file_format: str = "PNG", **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return base64.b64encode(file.getvalue()).decode()


def image_block(data: str, media_type: str = "image/png") -> Any:
    return {"type": "image", "data": data, "mimeType": media_type}


RED = encode(Image.new("RGB", (3, 2), "red"))

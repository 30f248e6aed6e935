"""How a transformers folder's preprocessor_config.json sizes and normalises pictures, as fields of Input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from models_store.errors import Unusable
from models_store.manifest import IMAGENET_MEAN, IMAGENET_STD

USUAL = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
RESAMPLE = {2: "bilinear", 3: "bicubic"}
NO_PREPROCESSOR = (
    "there was no preprocessor_config.json: the size and normalisation that {title} usually has were taken; send the folder "
    "with it, or give mean, std, min_size and max_size"
)


def preprocessing(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """(fields of Input, options, warnings) from preprocessor_config.json. Raises Unusable ``bad_config``."""
    try:
        return _preprocessing(raw)
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise Unusable(
            "bad_config",
            f"preprocessor_config.json cannot be read ({str(error)[:100]}): correct it, or send the folder without it and give "
            "mean, std, min_size and max_size",
        ) from None


def _preprocessing(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    spec: dict[str, Any] = {}
    warnings = []
    size = raw.get("size")
    if isinstance(size, list | tuple) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    if isinstance(size, int):
        size = {"shortest_edge": size, "longest_edge": raw.get("max_size", 1333)}
    if isinstance(size, Mapping):
        if "height" in size and "width" in size:
            spec["fixed_size"] = (int(size["height"]), int(size["width"]))
        elif "shortest_edge" in size:
            low = int(size["shortest_edge"])
            spec |= {
                "fixed_size": None,
                "min_size": low,
                "max_size": int(size.get("longest_edge") or 10 * low),
            }
        elif "max_height" in size and "max_width" in size:
            # As large as fits: no picture's shorter side is bounded by itself.
            sides = sorted((int(size["max_height"]), int(size["max_width"])))
            spec |= {"fixed_size": None, "min_size": sides[0], "max_size": sides[1]}
            if sides[0] != sides[1]:
                warnings.append(
                    f"its preprocessor fits pictures into {size['max_height']} x {size['max_width']}; here the shorter side gets "
                    f"at most {sides[0]} and the longer at most {sides[1]}; give min_size and max_size otherwise"
                )
    if raw.get("do_resize", True) is False:
        warnings.append(
            "its preprocessor does not resize pictures, here they are: give min_size and max_size as large as its pictures were"
        )
    factor = float(raw.get("rescale_factor") or 1 / 255) if raw.get("do_rescale", True) is not False else 1.0
    mean, std = (tuple(raw.get(f"image_{key}") or usual) for key, usual in USUAL.items())
    if raw.get("do_normalize", True) is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    # (p * factor - mean) / std of pixels p in 0 to 255, said of pixels in 0 to 1.
    scale = 1.0 if math.isclose(factor, 1 / 255, rel_tol=1e-4) else factor * 255
    spec |= {"mean": tuple(float(v) / scale for v in mean), "std": tuple(float(v) / scale for v in std)}
    resample = RESAMPLE.get(raw.get("resample", 2), "bilinear")
    return spec, {} if resample == "bilinear" else {"resample": resample}, tuple(warnings)

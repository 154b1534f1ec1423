"""Names of U-Net weights in the original layout of Stable Diffusion 1.x, 2.x and SDXL, the one that
user interfaces and kohya's trainer use.
"""

from __future__ import annotations

import re

UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_name(key: str, layers: int, attended: frozenset[int] = frozenset()) -> str | None:
    """The original name of a weight of a U-Net with `layers` layers a block; None if the layout has
    none.

    `attended`: the up blocks with attention, in which the upsampler is third.

    >>> unet_name("mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight", 2)
    'middle_block.1.transformer_blocks.0.attn2.to_v.weight'
    >>> unet_name("down_blocks.1.resnets.0.conv1.bias", 2)
    'input_blocks.4.0.in_layers.2.bias'
    """
    if match := re.fullmatch(r"(\w+(?:\.linear_\d)?)\.(weight|bias)", key):
        return f"{UNET_ENDS[match[1]]}.{match[2]}" if match[1] in UNET_ENDS else None
    match = re.fullmatch(
        r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)",
        key,
    )
    if match is None:
        return None
    way = match[1]
    block = int(match[2] or 0)
    part = match[3]
    rest = match[5]
    position = block * (layers + 1) + (layers if part.endswith("samplers") else int(match[4]))
    place = {"down": f"input_blocks.{position + 1}", "up": f"output_blocks.{position}"}.get(
        way, "middle_block"
    )
    if part == "downsamplers":
        return f"{place}.0.{rest.replace('conv.', 'op.', 1)}"
    if part == "upsamplers":
        return f"{place}.{2 if block in attended else 1}.{rest}"
    if way is None:
        place += f".{2 * int(match[4]) if part == 'resnets' else 1}"
    else:
        place += ".0" if part == "resnets" else ".1"
    if part == "attentions":
        return f"{place}.{rest}"
    name, _, end = rest.rpartition(".")
    return f"{place}.{RESNET[name]}.{end}" if name in RESNET else None

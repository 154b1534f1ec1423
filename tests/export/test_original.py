"""Names in the original layout: those of the published files, for models of their
full size (without weights).
"""

import pytest
import torch
from _published_unets import SD14, SD21, SDXL
from _tiny_files import tiny_family
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from findnemo.errors import ModelError
from findnemo.export import original_tensors
from findnemo.models.unet_names import unet_name

UNETS = {"sd1": SD14, "sd2": SD21, "sdxl": SDXL}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
TEXTS = {
    "sd1": [CLIP_L],
    "sd2": [
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,
            "hidden_act": "gelu",
        }
    ],
    "sdxl": [
        CLIP_L,
        {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "hidden_act": "gelu",
        },
    ],
}
# how diffusers calls a published file, how many tensors it has but for position_ids, logit_scale
# and the layer that 2.x does not
# use, and some of them with their shapes
KNOWN = {
    "sd1": (
        "v1",
        686 + 248 + 196,
        {
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_v.weight": (
                320,
                768,
            ),
            "model.diffusion_model.input_blocks.3.0.op.bias": (320,),
            "model.diffusion_model.input_blocks.4.0.emb_layers.1.weight": (640, 1280),
            "model.diffusion_model.middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
            "model.diffusion_model.middle_block.2.out_layers.3.bias": (1280,),
            "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
            "model.diffusion_model.output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
            "model.diffusion_model.output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
            "model.diffusion_model.out.0.weight": (320,),
            "first_stage_model.encoder.down.2.block.0.nin_shortcut.weight": (512, 256, 1, 1),
            "first_stage_model.encoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
            "first_stage_model.encoder.mid.block_2.conv2.bias": (512,),
            "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
            "first_stage_model.decoder.up.0.block.2.conv1.weight": (128, 128, 3, 3),
            "first_stage_model.decoder.norm_out.bias": (128,),
            "first_stage_model.post_quant_conv.weight": (4, 4, 1, 1),
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (
                49408,
                768,
            ),
            "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc2.bias": (768,),
        },
    ),
    "sd2": (
        "v2",
        686 + 248 + 23 * 12 + 4,
        {
            "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (
                320,
                1024,
            ),
            "model.diffusion_model.middle_block.1.proj_in.weight": (1280, 1280),
            "cond_stage_model.model.positional_embedding": (77, 1024),
            "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight": (3072, 1024),
            "cond_stage_model.model.transformer.resblocks.0.mlp.c_fc.weight": (4096, 1024),
            "cond_stage_model.model.ln_final.weight": (1024,),
        },
    ),
    "sdxl": (
        "xl_base",
        2515 - 2,
        {
            "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
            "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.attn2.to_v.weight": (
                1280,
                2048,
            ),
            "model.diffusion_model.output_blocks.5.2.conv.bias": (640,),
            "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (768,),
            "conditioner.embedders.1.model.text_projection": (1280, 1280),
            "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,),
            "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_bias": (3840,),
            "conditioner.embedders.1.model.token_embedding.weight": (49408, 1280),
        },
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("family", UNETS)
def test_full_size_models_get_the_names_and_shapes_of_the_published_files(family):
    pipeline = tiny_family(family)
    with torch.device("meta"):
        pipeline.unet = UNet2DConditionModel(**UNETS[family])
        pipeline.vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        for name, kind, sizes in zip(
            ("text_encoder", "text_encoder_2"),
            (CLIPTextModel, CLIPTextModelWithProjection),
            TEXTS[family],
            strict=False,
        ):
            setattr(
                pipeline,
                name,
                kind(CLIPTextConfig(**{"vocab_size": 49408, "projection_dim": 1280, **sizes})),
            )
    made = original_tensors(pipeline)
    kind, count, known = KNOWN[family]
    assert len(made) == count
    assert {name: tuple(made[name].shape) for name in known} == known
    assert infer_diffusers_model_type(made) == kind
    assert all(lazy.make().shape == lazy.shape for lazy in made.values())


def test_a_weight_that_the_layout_does_not_know_is_named():
    pipeline = tiny_family("sd1")
    pipeline.unet.mid_block.surplus = torch.nn.Linear(2, 2)
    with pytest.raises(
        ModelError,
        match=r"mid_block\.surplus\.weight of the U-Net has no place in the original layout",
    ):
        original_tensors(pipeline)
    assert unet_name("down_blocks.0.motion_modules.0.norm.weight", 2) is None
    assert unet_name("encoder_hid_proj.weight", 2) is None


def test_a_unet_with_other_layers_in_every_block_has_no_original_layout():
    from _tiny import tiny_pipeline

    pipeline = tiny_pipeline(layers_per_block=(1, 2, 2, 1))
    with pytest.raises(ModelError, match="one number of layers for all blocks"):
        original_tensors(pipeline)

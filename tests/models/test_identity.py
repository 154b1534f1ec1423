"""What makes another model of a live pipeline, by name, and what does not: each change is made
alone, after a calibration.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from _identified import PROMPTS, SETTINGS, lora
from _tiny import tiny_pipeline
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

import findnemo
from findnemo import ImageSettings, NeuronSet
from findnemo.calibration import Calibration, calibrate_in
from findnemo.errors import MismatchError
from findnemo.models import Model
from findnemo.models.identity import PICTURES, Identity
from findnemo.runs import AuditPlan, Run, Serial, Work, audit, merge, start
from findnemo.runs.compare import compare
from findnemo.runs.detectors import run_detectors, start_detectors

PLAN = AuditPlan(images=1, image_settings=ImageSettings(2, 3.0))
BARE = replace(PLAN, images=0)


@pytest.fixture
def model() -> Model:
    return findnemo.load(tiny_pipeline())


# changes ------------------------------------------------------------------------------------------


def plain(config: Any) -> dict[str, Any]:
    """A configuration of which another class takes all values, also those that nobody set."""
    return {name: value for name, value in config.items() if name != "_use_default_values"}


def made_anew(name: str, **config: Any) -> Any:
    """Exchange a part for one of the same weights and another configuration."""

    def change(pipeline: Any) -> None:
        old = getattr(pipeline, name)
        if hasattr(old.config, "to_dict"):
            known = type(old.config).from_dict(old.config.to_dict() | config)
            new = type(old)(known)
        else:
            new = type(old).from_config(plain(old.config) | config)
        new.load_state_dict(old.state_dict())
        setattr(pipeline, name, new.eval())

    return change


def scheduled(**config: Any) -> Any:
    def change(pipeline: Any) -> None:
        pipeline.scheduler = DDIMScheduler.from_config(plain(pipeline.scheduler.config) | config)

    return change


def each(name: str, kind: str, **values: Any) -> Any:
    """Set attributes of all modules of a class, in place."""

    def change(pipeline: Any) -> None:
        found = [m for m in getattr(pipeline, name).modules() if type(m).__name__ == kind]
        assert found
        for module in found:
            for key, value in values.items():
                setattr(module, key, value)

    return change


def zero_snr_by_hand(pipeline: Any) -> None:
    pipeline.scheduler.alphas_cumprod[-1] = 0


def one_value(pipeline: Any) -> None:
    pipeline.unet.conv_in.weight.data[3, 1, 0, 0] += 1e-3


def one_tiny_value(pipeline: Any) -> None:
    """Less than float16 could tell."""
    weight = pipeline.unet.conv_out.bias.data
    weight[0] = torch.nextafter(weight[0], torch.tensor(1.0))


def swapped_values(pipeline: Any) -> None:
    weight = pipeline.unet.mid_block.resnets[0].conv1.weight.data
    weight[0, 0, 0, 0], weight[5, 0, 1, 1] = weight[5, 0, 1, 1].clone(), weight[0, 0, 0, 0].clone()


def negated_neuron(pipeline: Any) -> None:
    pipeline.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_v.weight.data[
        4
    ].neg_()


def a_buffer(pipeline: Any) -> None:
    buffer = dict(pipeline.text_encoder.named_buffers())
    next(value for name, value in buffer.items() if name.endswith("position_ids"))[0, 5] = 4


def a_word(pipeline: Any) -> None:
    pipeline.tokenizer.add_tokens(["<toy>"])


def no_normalizer(pipeline: Any) -> None:
    pipeline.tokenizer.backend_tokenizer.normalizer = None


def tokenized(**values: Any) -> Any:
    return lambda pipeline: [
        setattr(pipeline.tokenizer, name, value) for name, value in values.items()
    ]


class Custom:
    def __call__(self, attention: Any, hidden_states: Any, **more: Any) -> Any:
        return hidden_states


def custom_attention(pipeline: Any) -> None:
    pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn1.processor = Custom()


SCORES = {
    "heads": (made_anew("unet", attention_head_dim=4), "unet: attention_head_dim 4 instead of 2"),
    "heads in place": (each("unet", "Attention", heads=1), "unet: Attention.heads set to 1 in "),
    "activation": (made_anew("unet", act_fn="gelu"), "unet: act_fn 'gelu' instead of 'silu'"),
    "activation in place": (lambda p: setattr(p.unet, "conv_act", torch.nn.GELU()), "unet: GELU.modules"),
    "norm in place": (each("unet", "GroupNorm", eps=1e-2), "unet: GroupNorm.eps set to 0.01 in "),
    "configuration in place": (lambda p: p.unet.register_to_config(center_input_sample=True), "center_input_sample True instead of False"),
    "FreeU": (lambda p: p.enable_freeu(0.9, 0.2, 1.2, 1.4), r"unet: .*Block2D\.[bs][12] "),
    "attention": (custom_attention, "unet: Attention.processor set to 'Custom'"),
    "beta": (scheduled(beta_end=0.02), "scheduler: beta_end 0.02 instead of 0.012"),
    "beta schedule": (scheduled(beta_schedule="linear"), "scheduler: beta_schedule 'linear' instead of 'scaled_linear'"),
    "zero snr": (scheduled(rescale_betas_zero_snr=True), "scheduler: rescale_betas_zero_snr True instead of nothing"),
    "trained betas": (scheduled(trained_betas=[0.001 * k for k in range(1, 1001)]), "scheduler: trained_betas '1000 values"),
    "spacing": (scheduled(timestep_spacing="trailing"), "scheduler: timestep_spacing 'trailing' instead of 'leading'"),
    "offset": (scheduled(steps_offset=0), "scheduler: steps_offset nothing instead of 1"),
    "prediction": (scheduled(prediction_type="v_prediction"), "scheduler: prediction_type 'v_prediction' instead of 'epsilon'"),
    "betas in place": (zero_snr_by_hand, "scheduler: alphas_cumprod 'set by hand"),
    "length": (tokenized(model_max_length=40), "tokenizer: model_max_length 40 instead of 77"),
    "side": (tokenized(padding_side="left"), "tokenizer: padding_side 'left' instead of 'right'"),
    "padding": (tokenized(pad_token="!"), r"tokenizer: pad_token '!' instead of '<\|endoftext\|>'"),
    "word": (a_word, "tokenizer: .*vocabulary"),
    "normalizer": (no_normalizer, "tokenizer: .*normalizer"),
    "text activation": (made_anew("text_encoder", hidden_act="gelu"), "text_encoder: hidden_act 'gelu' instead of 'quick_gelu'"),
    "text heads": (made_anew("text_encoder", num_attention_heads=4), "text_encoder: num_attention_heads 4 instead of 2"),
    "text norm in place": (each("text_encoder", "LayerNorm", eps=0.1), "text_encoder: LayerNorm.eps set to 0.1"),
    "text weight": (lambda p: p.text_encoder.get_input_embeddings().weight.data.mul_(1.01), "the weights of text_encoder differ"),
    "buffer": (a_buffer, "the weights of text_encoder differ"),
    "weight": (one_value, "the weights of unet differ"),
    "least bit": (one_tiny_value, "the weights of unet differ"),
    "swapped": (swapped_values, "the weights of unet differ"),
    "negated": (negated_neuron, "the weights of unet differ"),
    "another unet": (lambda p: setattr(p, "unet", tiny_pipeline(seed=5).unet), "the weights of unet differ"),
    "LoRA": (lambda p: lora(p.unet), "the LoRA 'toy' of unet is active at strength 1.0, was not"),
    "text LoRA": (lambda p: lora(p.text_encoder), "the LoRA 'toy' of text_encoder is active at strength 1.0, was not"),
}  # fmt: skip


def sampler(kind: Any) -> Any:
    def change(pipeline: Any) -> None:
        pipeline.scheduler = kind.from_config(
            plain(pipeline.scheduler.config) | {"skip_prk_steps": True}
        )

    return change


def vae_value(pipeline: Any) -> None:
    pipeline.vae.decoder.conv_out.bias.data[1] += 0.1


LOOKS = {
    "vae weight": (vae_value, "the weights of vae differ"),
    "vae scale": (
        lambda p: p.vae.register_to_config(scaling_factor=0.3),
        "vae: scaling_factor 0.3 instead of 0.18215",
    ),
    "vae activation": (made_anew("vae", act_fn="gelu"), "vae: act_fn 'gelu' instead of 'silu'"),
    "vae tiling": (lambda p: p.vae.enable_tiling(), "vae: AutoencoderKL.use_tiling set to True"),
    "pndm": (sampler(PNDMScheduler), "sampler: class 'PNDMScheduler' instead of 'DDIMScheduler'"),
    "dpm": (
        sampler(DPMSolverMultistepScheduler),
        "sampler: class 'DPMSolverMultistepScheduler' instead of",
    ),
    "clipping": (scheduled(clip_sample=True), "sampler: clip_sample True instead of False"),
}


# each by itself takes a third of a second: every third always
@pytest.mark.first(3)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (k % 3 > 0)) for k, n in enumerate(SCORES)]
)
def test_what_changes_scores_is_refused_by_name(name, model, calibration):
    calibration.check(model)
    before = model.identity
    change, told = SCORES[name]
    change(model.pipeline)
    with pytest.raises(
        MismatchError, match=rf"made for another model: .*{told}.*; calibrate again with this model"
    ):
        calibration.check(model)
    assert (
        model.fingerprint != before.fingerprint or name == "least bit"
    )  # a fingerprint is of float16
    assert json.loads(json.dumps(model.identity.to_json())) == model.identity.to_json()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES)
def test_a_calibration_from_a_file_names_it_too(name, model, calibration, tmp_path):
    loaded = Calibration.load(calibration.save(tmp_path))
    loaded.check(model)
    SCORES[name][0](model.pipeline)
    with pytest.raises(MismatchError, match=SCORES[name][1]):
        loaded.check(model)


@pytest.mark.first(2)
@pytest.mark.parametrize("name", LOOKS)
def test_what_changes_pictures_only_is_refused_by_runs_with_pictures(
    name, model, calibration, tmp_path
):
    for folder, plan in (("bare", BARE), ("seen", PLAN)):
        start(tmp_path / folder, model, calibration, plan).close()
    fingerprint = model.fingerprint
    change, told = LOOKS[name]
    change(model.pipeline)
    calibration.check(model)
    assert model.fingerprint == fingerprint
    start(tmp_path / "bare", model, calibration, BARE).close()
    with pytest.raises(
        MismatchError, match=rf"seen was made with other settings: .*{told}.*; give another --out"
    ):
        start(tmp_path / "seen", model, calibration, PLAN)


# what is the same model ---------------------------------------------------------------------------


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "harmless",
    [
        lambda m: m.denoiser.to(memory_format=torch.channels_last),
        lambda m: m.pipeline.unet.register_to_config(_name_or_path="elsewhere"),
        lambda m: setattr(m.pipeline.text_encoder.config, "_name_or_path", "elsewhere"),
        lambda m: setattr(m.pipeline.tokenizer, "name_or_path", "elsewhere"),
        lambda m: m.pipeline.enable_attention_slicing(),
        lambda m: m.pipeline.vae.enable_slicing(),
        lambda m: m.pipeline.unet.enable_gradient_checkpointing(),
        lambda m: m.pipeline.unet.requires_grad_(False),
        lambda m: (m.pipeline.fuse_qkv_projections(), m.pipeline.unfuse_qkv_projections()),
        lambda m: (m.pipeline.enable_freeu(0.9, 0.2, 1.2, 1.4), m.pipeline.disable_freeu()),
        lambda m: findnemo.generate(m, PROMPTS[0], [0], ImageSettings(2, 3.0)),
        lambda m: findnemo.score(
            m, PROMPTS[0], NeuronSet({next(iter(m.value_layers)): [0]}), SETTINGS
        ),
        lambda m: m.pipeline.tokenizer(PROMPTS, padding=True, truncation=True, max_length=5),
        lambda m: m.pipeline.to(torch.float64),
        lambda m: m.pipeline.to(torch.float16),
        lambda m: m.pipeline.to(torch.bfloat16),
        lambda m: m.pipeline.to(torch.float16).to(torch.float32),
        lambda m: (m.pipeline.to(torch.float16), m.pipeline.vae.to(torch.float32)),
        lambda m: m.pipeline.text_encoder.to(torch.bfloat16),
    ],
)
def test_what_changes_no_result_is_the_same_model(harmless, model, calibration):
    whole = model.identity
    harmless(model)
    calibration.check(model)
    assert model.identity.differences(whole) == []


def test_an_edit_under_way_is_no_other_model_and_a_pruned_one_is(model, calibration):
    neurons = NeuronSet({next(iter(model.value_layers)): [0, 1]})
    with findnemo.deactivate(model, neurons):
        calibration.check(model)
    calibration.check(model)
    with pytest.raises(MismatchError, match="the weights of unet differ"):
        calibration.check(findnemo.load(findnemo.prune(model, neurons)))
    calibration.check(model)


@pytest.mark.first(1)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_checkpoint_is_the_live_pipeline_in_every_dtype(dtype, model, calibration, tmp_path):
    model.pipeline.save_pretrained(tmp_path)
    loaded = findnemo.load(tmp_path, dtype=dtype)
    Calibration.load(calibration.save(tmp_path / "calibration")).check(loaded)
    assert loaded.identity.differences(model.identity) == []
    loaded.pipeline.save_pretrained(tmp_path / "again")
    assert findnemo.load(tmp_path / "again", dtype=dtype).identity == loaded.identity


@pytest.mark.slow
def test_two_roundings_of_one_checkpoint_cannot_be_told_and_that_is_said(model, tmp_path):
    model.pipeline.save_pretrained(tmp_path / "full")
    half, brain = (
        findnemo.load(tmp_path / "full", dtype=dtype) for dtype in ("float16", "bfloat16")
    )
    made = findnemo.calibrate(half, PROMPTS, settings=SETTINGS)
    with pytest.raises(
        MismatchError,
        match=(
            r"unet are rounded to bfloat16, were rounded to float16, .*load the model as float16 or"
            r" float32"
        ),
    ):
        made.check(brain)
    made.check(model)
    half.pipeline.save_pretrained(
        tmp_path / "half"
    )  # whose own values both can hold or round alike
    made.check(findnemo.load(tmp_path / "half", dtype="bfloat16"))
    made.check(findnemo.load(tmp_path / "half", dtype="float32"))


def test_bystanders_of_a_changed_model_are_refused(model, calibration):
    others = findnemo.localization.Bystanders(model, PROMPTS, SETTINGS)
    one_value(model.pipeline)
    again = findnemo.calibrate(model, PROMPTS, settings=SETTINGS)
    with pytest.raises(
        MismatchError,
        match="measured on another model: the weights of unet differ; make the Bystanders again",
    ):
        findnemo.localize(model, PROMPTS[0], again, max_impact=0.1, unrelated=others)


def test_a_model_that_changes_while_it_is_calibrated_gives_no_calibration(model, tmp_path):
    with pytest.raises(
        MismatchError,
        match=r"the model changed while it was calibrated: the weights of unet differ",
    ):
        calibrate_in(
            tmp_path, model, PROMPTS, SETTINGS, progress=lambda prompt: one_value(model.pipeline)
        )


# runs ---------------------------------------------------------------------------------------------


def prompts() -> Any:
    return findnemo.prompts.read_prompts(["a red fox", "a tin of paint"])


def test_work_on_a_run_stops_where_its_live_model_changed(model, calibration, tmp_path):
    with start(tmp_path / "run", model, calibration, PLAN) as run:
        work = Work(run, model, calibration, PLAN)
        audit(work, prompts(), ["detect"])
        vae_value(model.pipeline)
        with pytest.raises(
            MismatchError,
            match=(
                r"is not the model of .*run: the weights of vae differ; give that model, or a new"
                r" --out"
            ),
        ):
            audit(work, prompts(), ["verify"])
        one_value(model.pipeline)
        with pytest.raises(MismatchError, match=r"its fingerprint is .*the weights of unet differ"):
            audit(work, prompts(), ["detect"])


def test_a_run_without_pictures_remembers_those_that_are_made_later(model, calibration, tmp_path):
    with start(tmp_path / "run", model, calibration, BARE) as run:
        work = Work(run, model, calibration, BARE)
        audit(work, prompts(), ["detect", "localize"])
        compare(work, ["none"])
        compare(work, ["none"])
        vae_value(model.pipeline)
        with pytest.raises(
            MismatchError,
            match=r"the pictures in .*run were made with another model: the weights of vae differ",
        ):
            compare(work, ["none"])


def test_detectors_keep_the_whole_identity(model, tmp_path):
    settings = ImageSettings(2, 3.0)
    with start_detectors(tmp_path / "run", model, settings) as run:
        assert {*run.meta("settings")["identity"]} >= {*PICTURES}
        sampler(PNDMScheduler)(model.pipeline)
        with pytest.raises(MismatchError, match="sampler: class 'PNDMScheduler'"):
            run_detectors(run, prompts(), ["a cat"], ["one-step"], settings, Serial(model))
    with pytest.raises(
        MismatchError, match="made with other settings: sampler: class 'PNDMScheduler'"
    ):
        start_detectors(tmp_path / "run", model, settings)


def test_shards_with_pictures_of_another_autoencoder_are_not_merged(model, calibration, tmp_path):
    from findnemo.runs import Shard

    for k in (1, 2):
        with start(tmp_path / f"{k}", model, calibration, PLAN, Shard.of(f"{k}/2")) as run:
            findnemo.runs.enter(run, prompts(), Shard.of(f"{k}/2"))
        vae_value(model.pipeline)
    with pytest.raises(
        MismatchError, match=r"2 has different settings from .*1: the weights of vae differ"
    ):
        merge(tmp_path / "both", [tmp_path / "1", tmp_path / "2"])


def test_a_run_goes_on_with_the_same_model_loaded_otherwise(model, calibration, tmp_path):
    start(tmp_path / "run", model, calibration, PLAN).close()
    kept = json.loads((tmp_path / "run" / "settings.json").read_text())
    model.pipeline.vae.to(torch.bfloat16)
    start(tmp_path / "run", model, calibration, PLAN).close()
    assert json.loads((tmp_path / "run" / "settings.json").read_text()) == kept


# what an earlier findnemo made --------------------------------------------------------------------


def test_an_earlier_calibration_is_refused_with_the_way_out(model, calibration, tmp_path):
    earlier = replace(calibration, model="a83b3af6e0e52415d938567c53bc3791", identity=None)
    told = (
        "made by an earlier findnemo, which did not keep all that identifies a model; calibrate"
        " again with this model"
    )
    for made in (earlier, Calibration.load(earlier.save(tmp_path))):
        with pytest.raises(MismatchError, match=told):
            made.check(model)
        with pytest.raises(MismatchError, match=told):
            findnemo.detect(model, "a red fox", made)


def test_an_earlier_run_is_read_and_not_continued(model, calibration, tmp_path):
    settings = PLAN.settings(model, calibration)
    del settings["identity"]
    Run.create(tmp_path / "run", settings | {"model": "a83b3af6e0e52415d938567c53bc3791"}).close()
    with Run.open(tmp_path / "run") as run:
        assert run.meta("settings")["images"] == 1
    with pytest.raises(
        MismatchError,
        match=r"made with other settings: it was made by an earlier findnemo.*give another --out",
    ):
        start(tmp_path / "run", model, calibration, PLAN)


GOOD = {"float16": "a", "bfloat16": "b", "held": ["float16"]}


@pytest.mark.parametrize(
    "damage",
    [
        [],
        {"unet": 3},
        {"unet": {"settings": 3}},
        {"unet": {"settings": {}, "weights": {"held": []}}},
        {"unet": {"settings": {}, "weights": {**GOOD, "held": ["float32"]}}},
        {"unet": {"settings": {}, "weights": {**GOOD, "held": 3}}},
        {"u\x1b[2Jnet": {"settings": {}}},
        {"unet": {"settings": {"a\nb": 1}}},
    ],
)
def test_what_is_no_identity_is_refused(damage):
    assert (
        Identity.from_json({"unet": {"settings": {}, "weights": GOOD}}).parts["unet"].weights
        == GOOD
    )
    with pytest.raises(ValueError, match="its identity is not that of a model"):
        Identity.from_json(damage)


def test_identities_survive_json(model):
    identity = model.identity
    again = Identity.from_json(json.loads(json.dumps(identity.to_json())))
    assert again == identity
    assert (again.fingerprint, again.whole) == (identity.fingerprint, identity.whole)
    bare = Identity.from_json(identity.to_json(pictures=False))
    assert bare.fingerprint == identity.fingerprint
    assert not {*bare.parts} & {*PICTURES}
    assert copy.deepcopy(identity) == identity

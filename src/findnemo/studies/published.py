"""Published numbers, for comparison with ours.

Source: Finding NeMo (NeurIPS 2024), Stable Diffusion v1.4, fp16; medians.
"""

from __future__ import annotations

# row -> type -> (neurons, SSCD_orig, SSCD_gen, D_SSCD, A_CLIP)
Row = tuple[float | None, ...]
TABLE1: dict[str, dict[str, Row]] = {
    "All neurons active": {"VM": (0, 0.83, 1.0, 0.99, 0.32), "TM": (0, 0.04, 1.0, 0.17, 0.31)},
    "Random neurons": {"VM": (4, 0.80, 0.999, 0.99, 0.32), "TM": (21, 0.05, 0.997, 0.16, 0.31)},
    "Embedding adjustment (Wen et al.)": {
        "VM": (0, 0.04, 0.08, 0.08, 0.30),
        "TM": (0, 0.03, 0.08, 0.09, 0.31),
    },
    "Attention scaling (Ren et al.)": {
        "VM": (0, 0.08, 0.14, 0.15, 0.31),
        "TM": (0, 0.05, 0.19, 0.12, 0.31),
    },
    "1 random token": {"VM": (0, 0.59, 0.68, 0.67, 0.31), "TM": (0, 0.04, 0.16, 0.17, 0.31)},
    "4 random tokens": {"VM": (0, 0.09, 0.12, 0.15, 0.30), "TM": (0, 0.04, 0.13, 0.15, 0.30)},
    "10 random tokens": {"VM": (0, 0.03, 0.07, 0.11, 0.28), "TM": (0, 0.03, 0.08, 0.12, 0.29)},
    "Deactivated neurons (NeMo)": {
        "VM": (4, 0.09, 0.10, 0.16, 0.31),
        "TM": (21, 0.05, 0.05, 0.12, 0.31),
    },
}
TABLE4: dict[str, dict[str, Row]] = {
    "NeMo": TABLE1["Deactivated neurons (NeMo)"],
    "without refinement": {
        "VM": (26.5, 0.07, 0.11, 0.15, 0.32),
        "TM": (674.5, 0.04, 0.09, 0.13, 0.31),
    },
    "without top-k": {"VM": (11, 0.11, 0.21, 0.16, 0.32), "TM": (30, 0.05, 0.41, 0.13, 0.31)},
    "guidance in detection": {"VM": (3, 0.09, 0.14, 0.15, 0.32), "TM": (6, 0.05, 0.12, 0.11, 0.32)},
    "tau = mean - 1 std": {"VM": (10.5, 0.08, 0.14, None, None)},
    "tau = mean": {"VM": (6, 0.10, 0.14, None, None)},
    "tau = mean + 2 std": {"VM": (3, 0.10, 0.15, None, None)},
    "scaled by .75": {"VM": (4, 0.79, 0.995, 0.96, None)},
    "scaled by .5": {"VM": (4, 0.62, 0.97, 0.67, None)},
    "scaled by .25": {"VM": (4, 0.20, 0.32, 0.21, None)},
}
# seconds on a V100 or A100: algorithm -> type. Algorithm 2 includes a U-Net pass; the time of the
# text encoder is not included, or not reported.
TABLE2 = {
    "Alg. 1, noise differences": {"VM": 0.21, "TM": 0.18},
    "Alg. 2, out-of-distribution neurons": {"VM": 0.29, "TM": 0.25},
    "Alg. 3, initial selection": {"VM": 2.31, "TM": 6.09},
    "Alg. 4, refinement": {"VM": 12.85, "TM": 39.37},
    "total": {"VM": 15.68, "TM": 45.90},
}
# captions that are not memorized: how many, how many without a neuron, median of the others and its
# deviation
UNRELATED = (500, 442, 62, 27)
# hold-out scores: mean, std, tau
HOLDOUT = (0.358, 0.07, 0.428)
# the memorization score as a detector (appendix B.4): captions -> AUROC, accuracy at a threshold of
# .5, TPR at 1 % FPR
DETECTOR = {"all": (0.98, 0.942, 0.876), "VM": (0.9964, 0.9739, 0.9821)}
CLIP = "openai/clip-vit-base-patch32"  # the CLIP behind A_CLIP
EFFECTS = {  # figure of a caption's images -> head of its column
    "sscd_orig": "SSCD_orig",
    "sscd_gen": "SSCD_gen",
    "d_sscd": "D_SSCD",
    "a_clip": "A_CLIP",
}

"""AUROC and the true-positive rate, against counting pairs and thresholds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from findnemo.stats.roc import accuracy_of, auroc, tpr_at_fpr

SCORES = st.lists(st.integers(0, 8), min_size=1, max_size=30)


@given(SCORES, SCORES)
def test_auroc_is_the_u_statistic_over_the_number_of_pairs(positive, negative):
    found = auroc(torch.tensor(positive), torch.tensor(negative))
    u = mannwhitneyu(positive, negative).statistic
    assert found == pytest.approx(u / (len(positive) * len(negative)))


@given(SCORES, SCORES, st.sampled_from([0.01, 0.1, 0.5]))
def test_the_rate_is_the_largest_of_all_thresholds_within_the_false_alarms(positive, negative, fpr):
    best = max(
        sum(value > cut for value in positive) / len(positive)
        for cut in (*negative, *positive, -1)
        if sum(value > cut for value in negative) <= fpr * len(negative)
    )
    found = tpr_at_fpr(torch.tensor(positive), torch.tensor(negative), fpr)
    assert found == pytest.approx(best)


@given(st.lists(st.booleans(), min_size=1), st.lists(st.booleans(), min_size=1))
def test_accuracy_counts_right_verdicts(positive, negative):
    right = sum(positive) + sum(not one for one in negative)
    found = accuracy_of(torch.tensor(positive), torch.tensor(negative))
    assert found == pytest.approx(right / (len(positive) + len(negative)))

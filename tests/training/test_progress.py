"""The rules that end, slow down and switch a run."""

import json
from dataclasses import replace

import pytest

from training.config import Backbone, Recipe, Schedule, Stage
from training.progress import (
    Progress,
    after_epoch,
    after_step,
    is_finished,
    max_momentum,
    rate_at,
    start,
)

RECIPE = Recipe(
    name="x",
    backbone=Backbone.DENSENET121,
    attention=False,
    stages=(Stage(64, 20, 1e-3), Stage(128, 3, 1e-4)),
    early_stopping_patience=4,
    plateau_patience=2,
    plateau_factor=0.2,
)


def run(losses: list[float], accuracies: list[float] | None = None) -> list[Progress]:
    states = [start(RECIPE)]
    for loss, accuracy in zip(losses, accuracies or [0.5] * len(losses), strict=True):
        states.append(
            after_epoch(states[-1], RECIPE, validation_loss=loss, validation_accuracy=accuracy)
        )
    return states


def test_plateau_lowers_the_rate_and_improvement_does_not() -> None:
    rates = [s.learning_rate for s in run([1.0, 0.9, 0.9, 0.95, 0.8])]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3, 2e-4, 2e-4])


def test_early_stopping_moves_to_the_next_stage_with_its_own_rate_and_best() -> None:
    state = run([1.0, 2.0, 2.0, 2.0, 2.0], [0.9] * 5)[-1]
    assert (state.stage, state.stage_epoch, state.epoch) == (1, 0, 5)
    assert state.learning_rate == 1e-4
    assert state.best_accuracy < 0
    assert not is_finished(state, RECIPE)


def test_a_stage_ends_at_its_last_epoch_and_the_last_stage_ends_the_run() -> None:
    losses = [1.0 - 0.01 * i for i in range(23)]
    states = run(losses)
    assert [s.stage for s in states[19:21]] == [0, 1]
    assert is_finished(states[23], RECIPE)
    assert not is_finished(states[22], RECIPE)


def test_best_accuracy_keeps_its_epoch_through_the_end() -> None:
    losses = [1.0 - 0.01 * i for i in range(23)]
    accuracies = [0.99] * 20 + [0.6, 0.8, 0.7]
    final = run(losses, accuracies)[-1]
    assert (final.best_accuracy, final.best_epoch) == (0.8, 21)


def test_an_epochs_means_are_those_of_its_steps() -> None:
    state = start(RECIPE)
    for loss, accuracy in ((2.0, 0.25), (1.0, 0.5), (0.0, 1.5)):
        state = after_step(state, loss, accuracy)
    assert state.step == 3
    assert state.training_loss == pytest.approx(1.0)
    assert state.training_accuracy == pytest.approx(0.75)


def test_tiny_improvements_keep_a_run_going_and_still_lower_the_rate() -> None:
    states = run([1.0 - 0.00001 * i for i in range(8)])
    assert [s.stage for s in states] == [0] * 9
    assert states[-1].learning_rate < 1e-3


def test_state_survives_json() -> None:
    for state in (start(RECIPE), replace(start(RECIPE), step=7, best_loss=0.25, seconds=3.5)):
        assert Progress.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_cosine_rises_over_the_warmup_and_falls_to_zero_over_the_stage() -> None:
    recipe = replace(RECIPE, schedule=Schedule.COSINE, warmup_steps=4)
    states = [start(recipe)]
    for _ in range(19):
        states.append(after_epoch(states[-1], recipe, validation_loss=1.0, validation_accuracy=0))
        recipe = replace(recipe, early_stopping_patience=99)
    rates = [rate_at(recipe, state, step, 10) for state in states for step in range(10)]
    assert rates[:3] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3], rel=1e-2)
    assert max(rates) == pytest.approx(1e-3, rel=1e-2)
    assert rates[100] == pytest.approx(0.5e-3)
    assert 0 < rates[-1] < 1e-6
    assert all(a > b for a, b in zip(rates[4:], rates[5:], strict=False))


def test_a_short_stage_reaches_its_rate_and_forgets_the_stage_before() -> None:
    stages = (Stage(128, 5, 1e-3), Stage(224, 1, 2e-4, 60))
    recipe = replace(RECIPE, schedule=Schedule.COSINE, warmup_steps=100, stages=stages)
    short = replace(start(recipe), stage=1, learning_rate=2e-4)
    rates = [rate_at(recipe, short, step, 60) for step in range(60)]
    assert max(rates) == rates[5] == pytest.approx(2e-4, rel=0.02)
    assert max_momentum(recipe, 1, 60) == pytest.approx(5 / 6)
    assert max_momentum(recipe, 1, 60) ** 60 < 1e-4  # of what was averaged before it
    # A long one keeps its hundred steps, and the smallest has its own averages all the same.
    first = [rate_at(recipe, start(recipe), step, 200) for step in range(200)]
    assert max(first) == first[99]
    assert max_momentum(recipe, 1, 3) == 0.0


def test_plateau_keeps_one_rate_within_an_epoch_and_cosine_ignores_plateaus() -> None:
    assert rate_at(RECIPE, start(RECIPE), 7, 10) == 1e-3
    recipe = replace(RECIPE, schedule=Schedule.COSINE)
    state = start(recipe)
    for _ in range(3):
        state = after_epoch(state, recipe, validation_loss=1.0, validation_accuracy=0.5)
    assert state.learning_rate == 1e-3

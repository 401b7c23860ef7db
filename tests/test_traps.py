"""Seventeen ways in which published code for soft prompts was wrong, and the test that fails when each is put back.

1. padding changes results
   test_lm.py::test_label_logits_equal_the_original_model_on_one_unpadded_row
2. special tokens in a text init; tiled or cut
   test_inits.py::test_no_special_token_is_added_to_a_text
   test_inits.py::test_a_text_is_its_tokens_and_its_count_is_said
3. one init for every seed; seed 0 ignored
   test_inits.py::test_a_random_init_is_its_seeds_alone_and_seed_0_counts
   test_config.py::test_a_seed_set_by_hand_is_that_seed_and_leaves_the_others_also_when_it_is_zero
4. one generator for init, order and dropout
   test_tuning.py::test_the_order_of_the_data_does_not_depend_on_init_dropout_or_global_randomness
   test_tuning.py::test_dropout_is_reproducible_and_has_a_generator_of_its_own
5. checkpoints that share memory
   test_tuning.py::test_checkpoints_lie_where_asked_and_at_the_end
6. the embedding's weight for its output
   test_lm.py::test_tokens_given_as_a_prompt_act_as_the_same_tokens_given_as_text
7. prompt and text beyond the positions
   test_templates.py::test_an_example_beyond_the_models_positions_is_named_and_none_below
8. choosing the best prompt on the test split
   test_traps.py::test_the_best_prompt_is_chosen_without_a_look_at_the_test_split
9. transfer with the source's template
   test_traps.py::test_a_transferred_prompt_is_trained_and_scored_in_the_targets_template_and_labels
10. frozen is not eval
   test_lm.py::test_dropout_is_on_only_during_the_steps_of_a_run_that_asks_for_it
11. whatever dtype the checkpoint has
   test_lm.py::test_precision_is_pinned_whatever_the_checkpoint_was_saved_in
   test_lm.py::test_bf16_weights_with_fp32_prompt_loss_and_optimiser_state
12. decay and clipping over a stack of runs
   test_traps.py::test_a_runs_clipping_and_decay_do_not_see_its_neighbours
13. the loss averaged over rows or runs
   test_tuning.py::test_the_loss_is_the_mean_over_the_minibatchs_label_tokens_not_over_rows
14. generate() that ignores the prompt
   test_lm.py::test_greedy_equals_generate_with_and_without_a_cache
   test_lm.py::test_generation_does_not_ignore_the_prompt
15. a saved prompt cannot train on
   test_tuning.py::test_a_saved_prompt_trains_on_and_can_move_to_another_task
16. the space between "Label:" and the label
   test_templates.py::test_the_space_before_a_label_belongs_to_the_label
17. one learning rate for every model
   test_config.py::test_the_learning_rate_belongs_to_the_model_unless_it_is_given
"""

import csv
import itertools
import re
from pathlib import Path

import numpy as np
import torch

import reference
from promptgeo.runs.folder import Run
from promptgeo.training.engine import train_pack

SMALL = (
    "task.split.max_train=8",
    "task.split.max_test=4",
    "training.batch_size=4",
    "training.epochs=2",
    "evaluation.max_new_tokens=4",
    "template.longer_labels=warn",
)


def test_every_trap_has_a_test_that_exists():
    traps = re.split(r"^(?=\d+\. )", __doc__, flags=re.MULTILINE)[1:]
    tests = {
        int(trap.partition(".")[0]): re.findall(r"^   (test_\w+\.py)::(test_\w+)$", trap, re.MULTILINE)
        for trap in traps
    }
    assert set(tests) == set(range(1, 18)) and all(tests.values())
    for file, test in itertools.chain(*tests.values()):
        text = next(Path(__file__).parent.rglob(file)).read_text(encoding="utf-8")
        assert f"\ndef {test}(" in text, f"{file}::{test}"


def test_the_best_prompt_is_chosen_without_a_look_at_the_test_split(model_folders, tmp_path):
    """Trap 8. The same training examples with other test examples give the same training, to the last bit."""
    examples = [(f"{i}", f"{i + 2}") for i in range(40)]
    runs = []
    for name, labels in (("right", lambda label: label), ("other", lambda label: "7")):
        folder = tmp_path / name
        folder.mkdir()
        for split, rows in (("train", examples[:30]), ("test", [(a, labels(b)) for a, b in examples[30:]])):
            with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows([("input", "label"), *rows])
        task = (
            "task=custom",
            "task.name=mine",
            f"task.source.path={folder}",
            "task.split.kind=own",
            "task.split.validation=0.3",
            "task.split.test_size=0.5",
        )
        stopping = (
            "training.early_stopping.patience=1",
            "training.epochs=15",
            "training.batch_size=8",
            "optimizer.lr=0.5",
            "evaluation.max_new_tokens=4",
        )
        runs.append(reference.trained(reference.make_plan(model_folders["gpt2"], tmp_path, *task, *stopping)))
    assert runs[0].id != runs[1].id
    assert runs[0].info["results"]["steps"] == runs[1].info["results"]["steps"]
    for which in ("final", "best"):
        assert np.array_equal(runs[0].prompt(which), runs[1].prompt(which))
    assert runs[0].info["results"]["loss"] != runs[1].info["results"]["loss"]
    # What is reported is the test split, which shares no example with training.
    tested = {row["input"] for row in runs[0].predictions}
    assert tested == {f"{i}" for i in range(30, 40)} and runs[0].info["results"]["split"] == "test"


def test_a_transferred_prompt_is_trained_and_scored_in_the_targets_template_and_labels(model_folders, tmp_path):
    """Trap 9."""
    source = reference.trained(
        reference.make_plan(model_folders["gpt2"], tmp_path, *SMALL, "task=plus_two", "template=study3")
    )
    target = (*SMALL, "task=sentiment", "template=input_label", "task.max_input_tokens=8")
    moved = reference.make_plan(model_folders["gpt2"], tmp_path, *target, "init=run", f"init.path={source.folder}")
    fresh = reference.make_plan(model_folders["gpt2"], tmp_path, *target)
    assert (
        moved.task == fresh.task
        and moved.task.labels == ["negative", "positive"]
        and moved.task.template.name == "input_label"
    )
    for a, b in zip(moved.train_rows, fresh.train_rows, strict=True):
        assert a.ids.tolist() == b.ids.tolist() and a.label.tolist() == b.label.tolist()
    run = reference.trained(moved)
    assert {row["label"] for row in run.predictions} <= {"negative", "positive"} and "final" in run.info["results"][
        "label_accuracy"
    ]


def test_a_runs_clipping_and_decay_do_not_see_its_neighbours(model_folders, tmp_path):
    """Trap 12. A run is as alone beside one with other clipping and decay, and beside the idle slot of an ended one."""
    recipes = (
        ("seed=0", "optimizer.clip=0.01", "training.epochs=3"),
        ("seed=1", "optimizer.weight_decay=0.5", "training.max_steps=1"),
        ("seed=2", "optimizer.lr=0.2", "training.max_steps=2"),
    )

    def plans(outputs):
        return [
            reference.make_plan(
                model_folders["gpt2"], tmp_path / outputs, *SMALL, "task=plus_two", "optimizer=sgd", *recipe
            )
            for recipe in recipes
        ]

    model = reference.original(model_folders["gpt2"])
    together = plans("together")
    train_pack(together)
    for plan in together:
        final = Run.load(plan.folder).prompt("final")
        np.testing.assert_allclose(final, reference.train(plan, model)[-1], rtol=0, atol=2e-5)
        assert not torch.equal(torch.from_numpy(final), plan.p0_Pd)

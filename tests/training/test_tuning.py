"""PromptTuning against a plain PyTorch loop, and packs against solo runs."""

import csv
import itertools
import sys

import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

import reference
from promptgeo.config.schema import Optimizer, OptimizerKind, Schedule
from promptgeo.runs.folder import Run
from promptgeo.training import tuning
from promptgeo.training.engine import train_pack
from promptgeo.training.optimizers import group_settings, learning_rate, make_optimizer
from promptgeo.training.progress import SweepView

# 11 training examples in minibatches of 4: the last of an epoch has 3. Labels have 2 to 4 tokens.
SMALL = (
    "task=plus_two",
    "task.split.max_train=11",
    "task.split.max_test=3",
    "training.batch_size=4",
    "training.epochs=2",
    "evaluation.max_new_tokens=4",
    "template.longer_labels=warn",
)


@pytest.fixture
def make(model_folders, tmp_path):
    """make("optimizer.lr=0.1", ...) -> a plan on the small GPT-2."""

    def make(*overrides, family="gpt2", outputs="out"):
        return reference.make_plan(model_folders[family], tmp_path / outputs, *SMALL, *overrides)

    return make


def files(run: Run) -> dict[str, str]:
    """SHA-256 of all that the run wrote."""
    return run.info["files"]


def metrics(run: Run, split: str) -> list[dict[str, str]]:
    with (run.folder / "metrics.csv").open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["split"] == split]


RECIPES = {
    "adamw": (
        "optimizer.lr=0.02",
        "optimizer.weight_decay=0.1",
        "optimizer.schedule=linear",
        "optimizer.warmup_steps=2",
        "optimizer.clip=0.5",
    ),
    "adam": ("optimizer=adam", "optimizer.lr=0.02", "optimizer.betas=[0.8,0.95]", "optimizer.schedule=cosine"),
    "sgd": ("optimizer=sgd", "optimizer.lr=0.5", "optimizer.clip=0.1", "optimizer.warmup_steps=3"),
    "adafactor": ("optimizer=adafactor", "optimizer.lr=0.1"),
    "study3": ("optimizer=study3", "template=study3"),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_step_equals_a_plain_pytorch_loop_over_single_rows(make, recipe):
    plan = make(*RECIPES[recipe], "training.epochs=3", "training.checkpoints=1")
    assert len({len(row.label) for row in plan.train_rows}) > 1  # or the loss scale would not be tested
    run = reference.trained(plan)
    expected = reference.train(plan, reference.original(plan.config.model.name_or_path))
    assert run.tensors["steps"].tolist() == list(range(1, 10))
    np.testing.assert_allclose(run.tensors["trajectory"], expected, rtol=0, atol=2e-5)
    assert np.abs(run.prompt("final") - run.prompt("initial")).max() > 1e-3
    assert np.array_equal(run.prompt("final"), run.tensors["trajectory"][-1])


@pytest.mark.parametrize("family", ["bloom", "gpt_neox", "opt", "llama", "qwen2", "gemma3"])
def test_every_family_trains_as_the_plain_loop_does(make, family):
    plan = make("optimizer=sgd", "optimizer.lr=0.1", "training.max_steps=4", family=family)
    expected = reference.train(plan, reference.original(plan.config.model.name_or_path))
    np.testing.assert_allclose(reference.trained(plan).prompt("final"), expected[-1], rtol=0, atol=2e-5)


def test_the_loss_is_the_mean_over_the_minibatchs_label_tokens_not_over_rows(make):
    plan = make(
        "optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", "training.batch_size=11", "training.max_steps=1"
    )
    model, prompt = reference.original(plan.config.model.name_or_path), plan.p0_Pd.clone().requires_grad_()
    rows = [plan.train_rows[i] for i in reference.minibatches(plan)[0]]
    losses = [reference.row_loss(model, prompt, row) for row in rows]
    by_token = sum(losses) / sum(len(row.label) for row in rows)
    by_row = sum(loss / len(row.label) for loss, row in zip(losses, rows, strict=True)) / len(rows)
    right, wrong = (torch.autograd.grad(loss, prompt, retain_graph=True)[0].numpy() for loss in (by_token, by_row))
    run = reference.trained(plan)
    step = run.prompt("initial") - run.prompt("final")
    np.testing.assert_allclose(step, right, rtol=0, atol=1e-5)
    assert np.abs(step - wrong).max() > 1e-3


def test_a_rate_in_units_of_the_embeddings_trains_as_the_number_it_comes_to(make):
    in_units = make("optimizer.lr_in_embedding_units=0.2", "optimizer.schedule=linear", outputs="units")
    rate = 0.2 * float(in_units.lm.vocabulary().double().std(correction=0))
    run = reference.trained(in_units)
    assert run.info["lr"] == run.lr == run.row()["lr"] == pytest.approx(rate, rel=1e-6)
    assert run.info["config"]["optimizer"]["lr"] is None
    absolute = make(f"optimizer.lr={run.lr!r}", "optimizer.schedule=linear", outputs="absolute")
    assert absolute.id != in_units.id
    assert np.array_equal(reference.trained(absolute).prompt("final"), run.prompt("final"))
    assert run.prompt("final").tobytes() != run.prompt("initial").tobytes()


@pytest.mark.parametrize("schedule", Schedule)
@pytest.mark.parametrize("warmup", [0, 1, 7, 30])
def test_learning_rates_are_those_of_transformers_schedules(schedule, warmup):
    config = Optimizer(lr=0.3, schedule=schedule, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    name = "constant_with_warmup" if schedule is Schedule.constant else schedule.name
    scheduler = transformers.get_scheduler(name, optimizer, warmup, 25)
    for step in range(25):
        assert learning_rate(config, step, 25) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-15), step
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("kept", "steps"),
    [("epoch", [3, 6, 9, 10]), ("log", [1, 2, 4, 8, 10]), ("4", [4, 8, 10]), ("1", list(range(1, 11))), ("99", [10])],
)
def test_checkpoints_lie_where_asked_and_at_the_end(make, kept, steps):
    run = reference.trained(make(f"training.checkpoints={kept}", "training.max_steps=10", "evaluation.every=end"))
    every = reference.trained(
        make("training.checkpoints=1", "training.max_steps=10", "evaluation.every=end", outputs="every")
    )
    assert run.tensors["steps"].tolist() == steps
    # Copies: each is the prompt as it was at that step.
    assert np.array_equal(run.tensors["trajectory"], every.tensors["trajectory"][np.array(steps) - 1])
    assert len({checkpoint.tobytes() for checkpoint in run.tensors["trajectory"]}) == len(steps)


def test_metrics_hold_the_losses_and_accuracies_of_the_definition(make):
    plan = make("training.checkpoints=1", "optimizer.lr=0.05", "optimizer.schedule=linear")
    run = reference.trained(plan)
    model = reference.original(plan.config.model.name_or_path)
    prompts = [run.prompt("initial"), *run.tensors["trajectory"]]
    train, test = metrics(run, "train"), metrics(run, "test")
    assert [(row["step"], row["epoch"], row["n"]) for row in train] == [("3", "1", "11"), ("6", "2", "11")]
    assert [(row["step"], row["epoch"], row["n"]) for row in test] == [
        ("0", "0", "3"),
        ("3", "1", "3"),
        ("6", "2", "3"),
    ]
    assert test[0]["lr"] == ""  # no step was taken yet
    assert [float(row["lr"]) for row in train] == pytest.approx([0.05 * 4 / 6, 0.05 * 1 / 6])
    with torch.no_grad():
        for epoch, row in enumerate(train):
            total = tokens = right = 0
            for step in range(3 * epoch, 3 * epoch + 3):
                for i in reference.minibatches(plan)[step]:
                    logits = reference.label_logits(model, torch.from_numpy(prompts[step]), plan.train_rows[i])
                    label = torch.from_numpy(plan.train_rows[i].label)
                    total += float(cross_entropy(logits, label, reduction="sum"))
                    right += bool((logits.argmax(-1) == label).all())
                    tokens += len(label)
            assert float(row["loss"]) == pytest.approx(total / tokens, rel=1e-5)
            assert float(row["accuracy"]) == pytest.approx(right / 11)
        rows = plan.task.rows(plan.lm, plan.task.test, len(plan.p0_Pd))
        for row in test:
            prompt = torch.from_numpy(prompts[int(row["step"])])
            total = sum(float(reference.row_loss(model, prompt, r)) for r in rows)
            assert float(row["loss"]) == pytest.approx(total / sum(len(r.label) for r in rows), rel=1e-5)
            assert float(row["prompt_norm"]) == pytest.approx(float(prompt.norm()), rel=1e-5)
            assert float(row["distance_to_p0"]) == pytest.approx(float((prompt - plan.p0_Pd).norm()), rel=1e-5)


WATCHED = ("task.split.max_train=16", "task.split.validation=0.3", "training.epochs=12")


def test_early_stopping_keeps_the_prompt_of_the_lowest_validation_loss(make):
    plan = make(*WATCHED, "training.early_stopping.patience=2", "optimizer.lr=0.3")
    run = reference.trained(plan)
    losses = [float(row["loss"]) for row in metrics(run, "validation")][1:]  # without P0's
    best = int(np.argmin(losses))
    assert len(losses) < 12, "it never stopped: choose another learning rate"
    assert len(losses) == best + 1 + 2  # two epochs without a better loss
    assert run.status == "completed" and run.info["results"]["steps"] == 3 * len(losses)
    assert np.array_equal(run.prompt("best"), run.tensors["trajectory"][best])
    assert not np.array_equal(run.prompt("best"), run.prompt("final"))
    assert {row["prompt"] for row in run.predictions} == {"none", "initial", "final", "best"}


def test_without_patience_a_watched_run_trains_on_and_still_keeps_its_best(make):
    run = reference.trained(make(*WATCHED, "optimizer.lr=0.3"))
    losses = [float(row["loss"]) for row in metrics(run, "validation")][1:]
    assert len(losses) == 12
    assert np.array_equal(run.prompt("best"), run.tensors["trajectory"][int(np.argmin(losses))])


def test_without_a_validation_split_best_is_final(make):
    run = reference.trained(make())
    assert np.array_equal(run.prompt("best"), run.prompt("final"))
    assert {row["prompt"] for row in run.predictions} == {"none", "initial", "final"}


def test_max_steps_ends_a_run_inside_an_epoch(make):
    plan = make("training.max_steps=4", "training.epochs=9")
    run = reference.trained(plan)
    assert run.info["results"]["steps"] == 4 and run.tensors["steps"].tolist() == [3, 4]
    assert [(row["step"], row["n"]) for row in metrics(run, "train")] == [("3", "11"), ("4", "4")]


def test_no_epochs_leave_p0_as_it_is(make):
    run = reference.trained(make("training.epochs=0"))
    assert run.status == "completed" and run.tensors["steps"].tolist() == []
    assert np.array_equal(run.prompt("final"), run.prompt("initial"))


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_that_diverges_says_so_in_a_folder_of_its_own(make, epochs):
    run = reference.trained(make("optimizer=sgd", "optimizer.lr=1e30", f"training.epochs={epochs}"))
    assert Run.load(run.folder).status == "diverged"  # complete, and its checksums match
    assert set(run.info["results"]["accuracy"]) == {"none", "initial"}
    assert np.isfinite(run.prompt("initial")).all()


def test_a_finite_prompt_whose_loss_is_not_finite_has_diverged(make, tmp_path):
    np.save(tmp_path / "ones.npy", np.ones((4, 32), np.float32))
    plan = make(
        "init=file",
        f"init.path={tmp_path / 'ones.npy'}",
        "optimizer=sgd",
        "optimizer.lr=1e19",
        "optimizer.weight_decay=1e19",
        "training.max_steps=1",
    )
    run = reference.trained(plan)
    assert np.isfinite(run.prompt("final")).all() and run.status == "diverged"
    assert metrics(run, "test")[-1]["loss"] == "nan"


def test_the_order_of_the_data_does_not_depend_on_init_dropout_or_global_randomness(make):
    def order(plan):
        state = tuning.RunState(plan)
        return [state.next_minibatch() for _ in range(7)]

    plan = make("init=normal", "seeds.order=5")
    batches = order(plan)
    assert batches == reference.minibatches(make("seeds.order=5", "training.epochs=3"))[:7]
    assert [len(minibatch) for minibatch in batches] == [4, 4, 3, 4, 4, 3, 4]
    assert (
        sorted(itertools.chain(*batches[:3])) == sorted(itertools.chain(*batches[3:6])) == list(range(11))
        and batches[:3] != batches[3:6]
    )
    torch.manual_seed(99)
    assert order(make("init=uniform", "seeds.order=5", "seeds.init=8", "seeds.dropout=3")) == batches
    assert order(make("init=normal", "seeds.order=6")) != batches
    assert not torch.equal(make("init=normal", "seeds.order=5", "seeds.init=8").p0_Pd, plan.p0_Pd)
    assert torch.equal(make("init=normal", "seeds.order=6").p0_Pd, plan.p0_Pd)
    # One seed, other inits: other orders.
    assert order(make("init=cat")) != order(make("init=dog"))


def test_the_same_seed_writes_the_same_bytes_whatever_the_global_generator(make):
    torch.manual_seed(1)
    first = reference.trained(make("init=normal", "seed=3"))
    torch.manual_seed(2)
    second = reference.trained(make("init=normal", "seed=3", outputs="again"))
    assert files(first) == files(second) and len(files(first)) == 3
    assert files(reference.trained(make("init=normal", "seed=4"))) != files(first)


def test_dropout_is_reproducible_and_has_a_generator_of_its_own(make):
    first = reference.trained(make("training.dropout=true", "optimizer.lr=0.1"))
    torch.manual_seed(1234)
    assert files(reference.trained(make("training.dropout=true", "optimizer.lr=0.1", outputs="again"))) == files(first)
    other = reference.trained(make("training.dropout=true", "optimizer.lr=0.1", "seeds.dropout=5"))
    without = reference.trained(make("optimizer.lr=0.1"))
    finals = {run.prompt("final").tobytes() for run in (first, other, without)}
    assert len(finals) == 3


@pytest.mark.long
@pytest.mark.skipif(reference.DEVICE != "cpu", reason="a GPU's kernels change with the batch")
def test_a_pack_on_a_wide_model_is_bitwise_too(make, tmp_path, tokenizer):
    """Wide matrix products may change kernels with their number of rows: where they do, runs share no product."""
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=600, n_embd=512, n_layer=1, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0
        )
    )
    model.save_pretrained(tmp_path / "wide")
    tokenizer.save_pretrained(tmp_path / "wide")

    def wide(seed, outputs):
        return reference.make_plan(
            tmp_path / "wide",
            tmp_path / outputs,
            *SMALL,
            f"seed={seed}",
            "training.batch_size=8",
            "training.max_steps=2",
            "optimizer=sgd",
        )

    alone = [reference.trained(wide(seed, "alone")) for seed in range(4)]
    plans = [wide(seed, "pack") for seed in range(4)]
    train_pack(plans)
    assert [files(Run.load(plan.folder)) for plan in plans] == [files(run) for run in alone]


def test_a_packs_runs_must_share_an_optimiser_and_have_no_dropout(make):
    with pytest.raises(ValueError, match="runs with other optimisers"):
        tuning.PromptTuning([make("optimizer=sgd"), make("optimizer=adamw")])
    with pytest.raises(ValueError, match="a run with dropout trains alone"):
        tuning.PromptTuning([make(), make("training.dropout=true")])


def test_a_saved_prompt_trains_on_and_can_move_to_another_task(make):
    first = reference.trained(make("optimizer.lr=0.05"))
    plan = make(
        "init=run", f"init.path={first.folder}", "task=present_past", "optimizer.lr=0.05", "training.checkpoints=1"
    )
    assert np.array_equal(plan.p0_Pd.numpy(), first.prompt("final"))
    run = reference.trained(plan)
    assert np.array_equal(run.prompt("initial"), first.prompt("final"))
    expected = reference.train(plan, reference.original(plan.config.model.name_or_path))
    np.testing.assert_allclose(run.tensors["trajectory"], expected, rtol=0, atol=2e-5)
    assert np.abs(run.prompt("final") - run.prompt("initial")).max() > 0.01


def test_no_number_is_read_from_the_device_within_an_epoch(make, monkeypatch):
    """Reading one makes the host wait for a GPU. (The optimiser reads its own step counter, which lies on the host.)"""

    class Reads(TorchDispatchMode):
        readers: list[str]

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._local_scalar_dense.default:
                frame = sys._getframe()
                while frame is not None and not any(
                    part in frame.f_code.co_filename for part in ("/promptgeo/", "/transformers/", "torch/optim")
                ):
                    frame = frame.f_back
                if frame is not None and "/promptgeo/" in frame.f_code.co_filename:
                    self.readers.append(frame.f_code.co_name)
            return function(*args, **(kwargs or {}))

    reads: dict[int, list[str]] = {}
    step = tuning.PromptTuning.training_step

    def watched(self, batch, index):
        with Reads() as mode:
            mode.readers = reads.setdefault(index, [])
            step(self, batch, index)

    monkeypatch.setattr(tuning.PromptTuning, "training_step", watched)
    reference.trained(make("training.epochs=2", "optimizer.clip=1.0"))
    assert [reads[i] for i in (0, 1, 3, 4)] == [[]] * 4
    assert reads[2] and reads[5]  # at the end of an epoch the metrics are read


def test_the_progress_view_ends_full_when_a_run_stops_early(make):
    with SweepView(1, "a run") as view:
        view.report("planned", 36)
        plan = make(*WATCHED, "training.early_stopping.patience=1", "optimizer.lr=0.3")
        assert train_pack([plan], report=view.report) == {}
    run = Run.load(plan.folder)
    assert run.info["results"]["steps"] < 36
    assert (view.made, view.steps, view.done, view.active, view.failed) == (36, 36, 1, 0, 0)
    assert view.text.startswith(f"epoch {run.info['results']['steps'] // 3}/12")


@pytest.mark.parametrize("kind", OptimizerKind)
def test_group_settings_are_all_the_optimiser_has(kind):
    """A slot that is refilled gets each setting of its new run: none may be left from the run before."""
    config = Optimizer(name=kind, lr=0.1, betas=[0.5, 0.6], eps=1e-3, momentum=0.3, weight_decay=0.2)
    group = make_optimizer(config, [torch.nn.Parameter(torch.zeros(2, 2))]).param_groups[0]
    names = {"lr", "weight_decay", "betas", "momentum"} | ({"eps"} if kind is not OptimizerKind.adafactor else set())
    assert {k: v for k, v in group.items() if k in names} == group_settings(config)

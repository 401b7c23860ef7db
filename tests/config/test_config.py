"""The schema and its errors, every file of conf/ and sweeps/, the run's identity, the three seeds."""

import copy
import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from promptgeo import UserError
from promptgeo.config import identity as identity_module
from promptgeo.config import schema
from promptgeo.config.compose import compose, compose_grid
from promptgeo.config.identity import derived_seeds, identity
from promptgeo.config.paths import conf_dir, slug
from promptgeo.config.schema import (
    Evaluation,
    EvaluationSplit,
    Init,
    InitKind,
    Model,
    Optimizer,
    OptimizerKind,
    Prompt,
    RunConfig,
    Scoring,
    Source,
    Split,
    SplitKind,
    Task,
    Template,
    flatten,
    loggers,
    to_dict,
)
from promptgeo.config.validate import validate
from promptgeo.training.cell import cell_of

CONTENTS = {"model": "sha256:aa", "data": "sha256:bb"}


def by_hand(**fields) -> RunConfig:
    """A config that depends on no file of conf/, with what is auto resolved."""
    source, split = Source(bundled="country_capital.csv"), Split(kind=SplitKind.random)
    return RunConfig(
        model=Model(name="gpt2", name_or_path="openai-community/gpt2"),
        task=Task(name="country_capital", source=source, split=split),
        init=Init(name="cat", kind=InitKind.word, text="cat"),
        template=Template(name="input_label", text="Input: {input}\nLabel:", end="\n"),
        optimizer=Optimizer(lr=0.01),
        evaluation=Evaluation(max_new_tokens=16),
        **fields,
    )


def with_value(key: str, value) -> RunConfig:
    changed = by_hand()
    *path, last = key.split(".")
    node = changed
    for name in path:
        node = getattr(node, name)
    setattr(node, last, value)
    return changed


# ------------------------------------------------------------ the schema


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task=contry_capital", "task=contry_capital: no such task; nearest: country_capital"),
        ("init=cta", "init=cta: no such init; nearest: cat"),
        ("model=gpt3", "model=gpt3: no such model; nearest: gpt2"),
        ("model=3", "model=3: no such model; "),
        ("sweep=nope", "sweep=nope: no such sweep; one of "),
        ("template=null", "template=null: no such template; one of bare, chat, input_label, recite, study3"),
        ("init=[cat,dog]", "init=['cat', 'dog']: no such init; "),
        ("tsak=country_capital", "tsak: no such key; nearest: task"),
        ("task.sourc.path=x", "task.sourc.path: no such key; nearest: task.source.path"),
        ("training.epoch=3", "training.epoch: no such key; nearest: training.epochs"),
        ("epochs=3", "epochs: no such key; nearest: training.epochs"),
        ("lr=3", "lr: no such key; nearest: optimizer.lr"),
        ("split.zzz=3", "split.zzz: no such key; one of device, evaluation, grid, init"),
        ("task.split.zzzzzzzz=3", "task.split.zzzzzzzz: no such key; "),
        ("+foo=1", "foo: no such key; one of "),
        ("++training.epoch=3", "training.epoch: no such key; nearest: training.epochs"),
        ("+seed=1", "+seed=1: seed exists already; write it without +"),
        ("+sweep=quickstart", "+sweep=quickstart: sweep exists already; write it without +"),
        ("~init", "~init: a run needs every key, so none can be left out"),
        ("task@other=custom", "task@other: no such key; "),
        ("training=foo", "training=foo: training is a section; its keys: training.epochs, "),
        ("country_capital", "country_capital: cannot be read as key=value"),
        ("seed=1,", "seed=1,: cannot be read as key=value"),
        ("=3", "=3: has no key"),
        ("seed=0,1", "seed=0,1: several values need -m"),
        (
            "init.text=a,b",
            "init.text=a,b: several values need -m (one text with a comma is quoted twice: 'init.text=\"...\"')",
        ),
        ("seed=abc", "seed: Value 'abc' of type 'str' could not be converted to Integer"),
        ("seed=1.5", "seed: Value '1.5' of type 'float' could not be converted to Integer"),
        ("seed=", "seed: Value '' "),
        ("seed=null", "seed: "),
        ("optimizer.lr=fast", "optimizer.lr: Value 'fast' of type 'str' could not be converted to Float"),
        ("overwrite=perhaps", "overwrite: Value 'perhaps' "),
        (
            "optimizer.name=adamx",
            "optimizer.name: Invalid value 'adamx', expected one of [adamw, adam, sgd, adafactor]",
        ),
        ("precision=fp16", "precision: Invalid value 'fp16', expected one of [auto, fp32, bf16]"),
        ("optimizer.betas=0.9", "optimizer.betas: a list is needed, as in 'optimizer.betas=[a,b]'"),
        ("optimizer.betas=[a,b]", "optimizer.betas[0]: Value 'a' "),
        ("task.labels=yes", "task.labels: a list is needed"),
        ("seed=${nope}", "seed: Interpolation key 'nope' not found"),
        ("hydra.foo=1", "hydra.foo: Hydra has no such key"),
        ("hydra/launcher=foo", "hydra/launcher=foo: no such hydra/launcher; one of "),
    ],
)
def test_what_the_schema_does_not_know_is_one_line_that_names_the_key_and_the_nearest(override, said):
    with pytest.raises(UserError) as error:
        compose([override])
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", -1, "seed=-1: must be a whole number from 0 to 2^63 - 1"),
        ("seed", 9223372036854775808, "seed=9223372036854775808: must be"),
        ("seeds.order", -1, "seeds.order=-1: must be"),
        ("prompt.length", 0, "prompt.length=0: must be a whole number from 1"),
        ("prompt.length", 1000001, "prompt.length=1000001: must be a whole number from 1 to 1,000,000"),
        ("training.epochs", -1, "training.epochs=-1: must be a whole number from 0"),
        ("training.epochs", 99999999999999999999, "training.epochs=99999999999999999999: must be"),
        ("training.max_steps", 0, "training.max_steps=0: "),
        ("training.batch_size", 0, "training.batch_size=0: "),
        ("training.early_stopping.patience", 0, "training.early_stopping.patience=0: "),
        ("training.early_stopping.accuracy", 1.5, "training.early_stopping.accuracy=1.5: must be above 0, at most 1"),
        ("training.early_stopping.accuracy", 1, "training.early_stopping.accuracy needs validation examples"),
        ("training.early_stopping.patience", 2, "training.early_stopping.patience needs validation examples"),
        ("training.checkpoints", "often", "training.checkpoints=often: must be epoch, log, or a number of steps"),
        ("training.checkpoints", "0", "training.checkpoints=0: "),
        ("evaluation.max_new_tokens", 0, "evaluation.max_new_tokens=0: "),
        ("evaluation.split", EvaluationSplit.validation, "evaluation.split=validation needs validation examples"),
        ("optimizer.lr", float("nan"), "optimizer.lr=nan: must be a finite number"),
        ("optimizer.lr", float("inf"), "optimizer.lr=inf: must be a finite number"),
        ("optimizer.lr", 0, "optimizer.lr=0: must be greater than 0"),
        ("optimizer.lr", -1, "optimizer.lr=-1: must be greater than 0"),
        ("model.learning_rate", float("nan"), "model.learning_rate=nan: must be a finite number"),
        ("optimizer.eps", 0, "optimizer.eps=0: "),
        ("optimizer.weight_decay", -0.1, "optimizer.weight_decay=-0.1: "),
        ("optimizer.momentum", 1, "optimizer.momentum=1: "),
        ("optimizer.clip", 0, "optimizer.clip=0: "),
        ("optimizer.warmup_steps", -1, "optimizer.warmup_steps=-1: "),
        ("optimizer.betas", [0.9], "optimizer.betas=[0.9]: must be two numbers from 0 to .9999999"),
        ("optimizer.betas", [0.9, 1.0], "optimizer.betas=[0.9, 1.0]: "),
        ("optimizer.betas", [0.9, float("nan")], "optimizer.betas=[0.9, nan]: "),
        ("init.scale", 0, "init.scale=0: "),
        ("task.split.test_size", 1, "task.split.test_size=1: "),
        ("task.split.validation", 1, "task.split.validation=1: "),
        ("task.split.seed", -1, "task.split.seed=-1: "),
        ("task.split.max_train", 0, "task.split.max_train=0: "),
        ("task.label_length", 0, "task.label_length=0: "),
        ("task.source.row", 0, "task.source.row=0: one example cannot be split into train and test"),
        ("task.max_input_tokens", 0, "task.max_input_tokens=0: "),
        ("name", "../x", "name=../x: must be a folder name below outputs/"),
        ("name", "..", "name=..: must be a folder name"),
        ("name", "/etc", "name=/etc: must be a folder name"),
        ("name", "", "name=: must be a folder name"),
        ("outputs", "", "outputs=: must be a folder"),
        ("template.text", "no place", "template.text='no place': must be a text that holds {input}"),
        ("template.text", "{input}{label}", "template.text holds {label}: only {input} and {prompt} may stand there"),
        ("template.label", "x", "template.label='x': must be a text that holds {label} once"),
        ("template.end", "", "template.scoring=line needs a terminator"),
        ("init.kind", InitKind.file, "init=file needs init.path=<a .npy, .npz, .safetensors or .pt file>"),
        ("init.kind", InitKind.run, "init=run needs init.path=<a run folder>"),
        ("init.text", "", "init=word needs a text: set 'init.text=\"...\"'"),
    ],
)
def test_an_impossible_value_is_one_line_that_names_the_key(key, value, said):
    with pytest.raises(UserError) as error:
        validate(with_value(key, value))
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_bad_value_anywhere_in_a_grid_is_found():
    with pytest.raises(UserError, match="task=foo: no such task"):
        compose_grid(["task=country_capital,foo"], multirun=True)
    with pytest.raises(UserError, match="seed: Value 'x'"):
        compose_grid(["seed=0,x"], multirun=True)
    with pytest.raises(UserError, match=r"seed=interval\(0,1\): a grid needs values that can be listed"):
        compose_grid(["seed=interval(0,1)"], multirun=True)


@pytest.mark.long
def test_a_grid_is_every_combination_in_order_and_a_later_value_replaces_the_sweeps_own():
    grid = compose_grid(["init=cat,dog", "seed=range(0,3)", "name=x"], multirun=True)
    assert [(c.init.name, c.seed) for c in grid] == [(i, s) for i in ("cat", "dog") for s in (0, 1, 2)]
    assert {c.name for c in grid} == {"x"}
    assert {c.task.name for c in compose_grid(["task=glob([plus_one,plus_two])"], multirun=True)} == {
        "plus_one",
        "plus_two",
    }
    smaller = compose_grid(["sweep=quickstart", "seed=5"])
    assert len(smaller) == 9 and {c.seed for c in smaller} == {5}


def test_a_users_own_config_folder_adds_options_and_its_errors_name_the_file(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("name: mine\nsource:\n  kind: file\n  path: my.csv\n")
    (tmp_path / "task" / "typo.yaml").write_text("name: typo\nsorce:\n  kind: file\n")
    (tmp_path / "task" / "broken.yaml").write_text("name: a: b\n")
    here = f"hydra.searchpath=[file://{tmp_path}]"
    assert compose(["task=mine", here]).task.source.path == "my.csv"
    for option, said in {
        "mein": r"^task=mein: no such task; nearest: mine$",
        "typo": r"^task/typo.yaml: task.sorce: no such key; nearest: task.source\.",
        "broken": rf'^mapping values are not allowed here in "{tmp_path}/task/broken.yaml", line 1, column 8$',
    }.items():
        with pytest.raises(UserError, match=said):
            compose([f"task={option}", here])


# ------------------------------------------------------------ conf/ and sweeps/

OPTIONS = sorted(
    (p.parent.name, p.stem) for p in Path(conf_dir()).glob("*/*.yaml") if p.parent.name != "analysis"
)  # those: test_analyze.py
NEEDS = {
    ("regulariser", "orthogonal"): ["regulariser.seeds=[0,1]"],
    ("regulariser", "wayward"): ["regulariser.text=a tree"],
    ("init", "word"): ["init.text=tree"],
    ("init", "text"): ["init.text=a tree"],
    ("init", "task_text"): ["task=cb"],
    ("init", "task_vocab"): ["task=cb"],
    ("task", "record"): ["task.refused=null"],
    ("init", "file"): ["init.path=p.npy"],
    ("init", "run"): ["init.path=outputs/x/y"],
    ("task", "custom"): ["task.source.path=my.csv"],
    ("sweep", "capacity"): ["task.source.row=0,1"],  # composing 504 runs takes half a minute
    ("model", "custom"): ["model.name_or_path=org/my-model"],
}
RUNS = {"quickstart": 9, "learning_rate": 27, "length": 12}  # with one seed
TEN_WORDS = {"bird", "book", "cat", "chair", "dog", "house", "paper", "pen", "table", "water"}


def test_the_listing_of_conf_is_complete():
    groups = {group: {option for g, option in OPTIONS if g == group} for group, _ in OPTIONS}
    assert (
        TEN_WORDS | {"word", "text", "task_text", "task_vocab", "vocab", "normal", "uniform", "labels", "file", "run"}
        == groups["init"]
    )
    assert {
        "plus_one",
        "plus_two",
        "plus_k",
        "identity",
        "country_capital",
        "landmark_country",
        "present_past",
        "singular_plural",
        "capitalize_first_letter",
        "lowercase_first_letter",
        "sentiment",
        "rotten_tomatoes",
        "imdb",
        "custom",
        "cb",
        "rte",
        "copa",
        "wsc",
        "boolq",
        "wic",
        "multirc",
        "record",
        "toy_cb",
        "toy_rte",
        "toy_copa",
        "toy_wsc",
        "recite",
    } == groups["task"]
    assert {
        "custom",
        "tiny",
        "gpt2",
        "gpt2-medium",
        "gpt2-large",
        "gpt2-xl",
        "distilgpt2",
        "bloom-560m",
        "bloomz-560m",
        "pythia-70m",
        "pythia-160m",
        "pythia-410m",
        "pythia-1b",
        "opt-125m",
        "smollm2-135m",
        "qwen2.5-0.5b",
        "llama-3.2-1b",
        "gemma-3-1b-it",
        "gemma-3-1b",
        "gemma-3-270m-it",
        "gemma-3-270m",
        "llama-3.2-1b-instruct",
        "olmo-2-1b-instruct",
        "olmo-2-1b",
        "pythia-1.4b",
        "pythia-14m",
        "pythia-31m",
        "qwen2.5-0.5b-instruct",
        "qwen3-0.6b-base",
        "qwen3-0.6b",
        "qwen3-1.7b-base",
        "qwen3-1.7b",
        "smollm2-1.7b-instruct",
        "smollm2-1.7b",
        "smollm2-135m-instruct",
        "smollm2-360m-instruct",
        "smollm2-360m",
        "smollm3-3b-base",
        "smollm3-3b",
    } == groups["model"]
    assert {"input_label", "study3", "bare", "chat", "recite"} == groups["template"]
    assert {"adamw", "adam", "sgd", "adafactor", "study3"} == groups["optimizer"]
    assert {"none", "orthogonal", "wayward"} == groups["regulariser"]
    assert "quickstart" in groups["sweep"]


@pytest.mark.parametrize(
    ("group", "option"),
    [
        pytest.param(*pair, marks=[pytest.mark.long] if pair[0] == "sweep" else [], id="=".join(pair))
        for pair in OPTIONS
    ],
)
def test_every_file_of_conf_composes_is_valid_and_says_what_it_provides(group, option):
    header = (Path(conf_dir()) / group / f"{option}.yaml").read_text().replace("# @package _global_\n", "")
    assert header.startswith(f"# {group}={option}")
    grid = compose_grid([f"{group}={option}", *NEEDS.get((group, option), []), "seed=0"])
    for each in grid:
        validate(each)
    if group == "sweep":
        assert {(c.name, c.sweep) for c in grid} == {(option, option)}
        assert len(grid) == RUNS.get(option, len(grid)) >= 1
    elif group == "regulariser":
        assert grid[0].regulariser.name.name == option
    elif group == "optimizer":
        assert grid[0].optimizer.name.name == ("adamw" if option == "study3" else option)
    elif option == "custom":
        assert getattr(grid[0], group).name == {"model": "my-model", "task": "my"}[group]
    elif option == "recite" and group == "task":
        assert grid[0].task.name == "real_0"  # each text is a task of its own
    else:
        assert getattr(grid[0], group).name == option


def test_the_ten_words_are_their_own_text():
    for word in TEN_WORDS:
        init = compose([f"init={word}"]).init
        assert (init.kind, init.text) == (InitKind.word, word)


def test_the_learning_rate_belongs_to_the_model_unless_it_is_given():
    rates = {
        line: (optimizer.lr, optimizer.lr_in_embedding_units)
        for line in ("model=tiny", "optimizer=adam", "model=gpt2-xl", "model.name_or_path=org/x", "optimizer=study3")
        for optimizer in [compose([line]).optimizer]
    }
    assert rates == {
        "model=tiny": (0.01, None),
        "optimizer=adam": (0.01, None),
        "model=gpt2-xl": (None, schema.DEFAULT_RATE),
        "model.name_or_path=org/x": (None, schema.DEFAULT_RATE),
        "optimizer=study3": (1e-3, None),
    }
    units = compose(["model=tiny", "optimizer.lr_in_embedding_units=0.2"]).optimizer
    assert (units.lr, units.lr_in_embedding_units) == (None, 0.2)
    both = compose(["optimizer=study3", "optimizer.lr_in_embedding_units=0.2"])
    with pytest.raises(UserError, match=r"optimizer.lr=0.001 and optimizer.lr_in_embedding_units=0.2: both are given"):
        validate(both)
    assert compose(["model=gpt2-xl", "optimizer.lr=0.3"]).optimizer.lr == 0.3
    study3 = compose(["model=gpt2-xl", "optimizer=study3"]).optimizer
    assert (study3.lr, study3.weight_decay, study3.schedule.name, study3.warmup_steps, study3.clip) == (
        1e-3,
        0.01,
        "linear",
        0,
        None,
    )


def test_the_templates_own_length_of_output_is_the_default_of_the_evaluation():
    assert compose(["template=study3"]).evaluation.max_new_tokens == 5
    assert compose(["template=study3", "evaluation.max_new_tokens=9"]).evaluation.max_new_tokens == 9


# ------------------------------------------------------------ identity


def test_identities_are_those_that_earlier_versions_gave():
    """A changed hash here makes every finished run unknown: only a change that decides numbers may do so."""
    other = RunConfig(
        model=Model(name="other", name_or_path="x"),
        task=Task(name="sentiment", labels=["negative", "positive"], split=Split(kind=SplitKind.own, max_test=100)),
        init=Init(name="text", kind=InitKind.text, text="hello thére"),
        template=Template(name="study3", text="Input: {input}\nLabel: ", label="{label}", scoring=Scoring.prefix),
        optimizer=Optimizer(name=OptimizerKind.sgd, lr=1.0, momentum=0.9),
        prompt=Prompt(length=None),
        evaluation=Evaluation(max_new_tokens=5),
        seed=3,
    )
    assert identity(by_hand(), "fp32", CONTENTS) == "96bf088c09a876b8b9964608a8f2cd4c69f4cba55722407a8534a8efac61c871"
    assert (
        identity(by_hand(seed=1), "bf16", CONTENTS | {"init": "cc"})
        == "407d801b0e6724c153b9fc3608aa9fdf7b6f5b467d40b21ff681ef321045bd89"
    )
    assert identity(other, "fp32", CONTENTS) == "f6d1fa8289040ba94fdfe8a110221a3936dffd77c06abddf7d3390162e17bbbd"


def test_the_identities_of_a_tiny_run_and_of_a_hub_models_run_are_pinned():
    """Composed, checked, and with the contents of model and data, as a command does it."""
    tiny = compose(["model=tiny", "task=country_capital", "init=cat", "precision=fp32"])
    hub = compose(["model=gpt2-xl", "task=country_capital", "init=cat", "optimizer.lr=0.005"])
    contents = {"model": f"gpt2-xl@{'0123456789' * 4}", "data": f"sha256:{'ab' * 32}"}
    assert cell_of(tiny).id == "537973fdc44e9ab45d4c092b25ba12545e3bb7f246823bceae37335d2a77c6b3"
    assert identity(hub, "bf16", contents) == "ede1b4b4bdc5074cc9c53111e61efcfd8e159432675da57b9817a534e732be8a"


def test_a_field_added_later_keeps_the_identity_of_old_runs(monkeypatch):
    before = identity(by_hand(), "fp32", CONTENTS)

    @dataclasses.dataclass
    class Later(RunConfig):
        regularisation: float = 0.5

    later = Later(**{f.name: getattr(by_hand(), f.name) for f in dataclasses.fields(RunConfig)})
    monkeypatch.setattr(identity_module, "RunConfig", Later)
    assert identity(later, "fp32", CONTENTS) == before
    later.regularisation = 0.6
    assert identity(later, "fp32", CONTENTS) != before


def test_numbers_count_by_value_however_they_were_written():
    ids = {
        identity(compose([f"optimizer.lr={lr}", f"training.checkpoints={n}"]), "fp32", CONTENTS)
        for lr in ("1", "1.0", "'1'", "1e0")
        for n in ("5", "'5'")
    }
    assert len(ids) == 1
    assert identity(compose(["optimizer.lr=2"]), "fp32", CONTENTS) not in ids
    assert identity(with_value("optimizer.lr", 1), "fp32", CONTENTS) == identity(
        with_value("optimizer.lr", 1.0), "fp32", CONTENTS
    )


DECIDES = {
    "task.name": "x",
    "task.version": 2,
    "task.source.kind": schema.SourceKind.file,
    "task.source.dataset": "x",
    "task.source.subset": "x",
    "task.source.revision": "x",
    "task.source.input": "x",
    "task.source.label": "x",
    "task.split.kind": SplitKind.all,
    "task.split.test_size": 0.3,
    "task.split.seed": 1,
    "task.split.validation": 0.1,
    "task.split.max_train": 5,
    "task.split.stratify": True,
    "task.split.max_test": 5,
    "task.split.train": "dev",
    "task.split.test": "dev",
    "task.labels": ["a"],
    "task.accepted": [["b"]],
    "task.content_free": "N/A",
    "task.source.cut": "x",
    "task.split.stop_on_test": True,
    "task.max_input_tokens": 5,
    "task.label_length": 5,
    "task.source.row": 5,
    "init.name": "x",
    "init.kind": InitKind.text,
    "init.text": "x",
    "init.which": "best",
    "init.scale": 2.0,
    "init.unit": schema.Unit.embedding,
    "template.bos": schema.Bos.always,
    "template.text": "{input}",
    "template.label": "{label}",
    "template.end": "!",
    "template.scoring": Scoring.prefix,
    "template.chat": True,
    "template.label_tokens": schema.LabelTokens.anchored,
    "optimizer.name": OptimizerKind.sgd,
    "optimizer.lr": 0.02,
    "optimizer.lr_in_embedding_units": 0.02,
    "optimizer.betas": [0.9, 0.99],
    "optimizer.eps": 1e-6,
    "optimizer.momentum": 0.5,
    "optimizer.weight_decay": 0.1,
    "optimizer.clip": 1.0,
    "optimizer.schedule": schema.Schedule.linear,
    "optimizer.warmup_steps": 1,
    "prompt.length": 5,
    "training.epochs": 1,
    "training.max_steps": 1,
    "training.batch_size": 1,
    "training.early_stopping.patience": 1,
    "training.early_stopping.accuracy": 0.9,
    "training.checkpoints": "log",
    "training.dropout": True,
    "evaluation.max_new_tokens": 1,
    "evaluation.split": EvaluationSplit.validation,
    "evaluation.every": "end",
    "seed": 1,
    "seeds.init": 0,
    "seeds.order": 0,
    "seeds.dropout": 0,
    "regulariser.name": schema.RegulariserKind.orthogonal,
    "regulariser.weight": 2.0,
    "regulariser.seeds": [0, 1],
    "regulariser.size": 2,
    "regulariser.gamma": 0.1,
    "regulariser.text": "x",
    "task.source.repeat": "x",
}
# What enters by content, or after it is resolved, does not enter by name.
DOES_NOT = {
    "name": "x",
    "outputs": "x",
    "overwrite": True,
    "sweep": "x",
    "device": schema.Device.cuda,
    "precision": schema.Precision.bf16,
    "model.name": "x",
    "model.name_or_path": "x",
    "model.revision": "x",
    "model.learning_rate": 1.0,
    "model.trust_remote_code": True,
    "task.description": "x",
    "task.text": "x",
    "task.refused": "x",
    "task.source.folder": "x",
    "task.source.subfolder": "x",
    "task.source.classes": ["x"],
    "task.source.class_files": ["x"],
    "task.source.path": "x",
    "task.source.bundled": "x",
    "task.source.function_vectors": "x",
    "task.source.sha256": "x",
    "init.path": "x",
    "template.name": "x",
    "template.max_new_tokens": 1,
    "template.longer_labels": schema.LongerLabels.warn,
    "study": {"published": 1},
    "training.keep_state": True,
    "training.continue_from": "x",
    "preview": True,
    "logger": "wandb",
    "packing.max_runs": 3,
    "packing.devices": 2,
    "packing.compile": True,
    "grid.zip": ["init", "seed"],
    "grid.draws": 3,
    "grid.sampler": schema.Sampler.random,
    "grid.seed": 1,
    "grid.halving": 3,
    "wandb.project": "x",
    "wandb.entity": "x",
    "wandb.mode": "offline",
}


def test_every_field_either_decides_numbers_or_does_not():
    keys = set(flatten(dataclasses.asdict(with_value("study", {"published": 1}))))
    assert keys == set(DECIDES) | {k if k != "study" else "study.published" for k in DOES_NOT}
    assert not set(DECIDES) & set(DOES_NOT)


@pytest.mark.parametrize("key", DECIDES)
def test_a_field_that_decides_numbers_changes_the_identity(key):
    assert identity(with_value(key, DECIDES[key]), "fp32", CONTENTS) != identity(by_hand(), "fp32", CONTENTS)


@pytest.mark.parametrize("key", DOES_NOT)
def test_a_field_that_decides_no_number_leaves_the_identity(key):
    assert identity(with_value(key, DOES_NOT[key]), "fp32", CONTENTS) == identity(by_hand(), "fp32", CONTENTS)


def test_contents_and_resolved_precision_change_the_identity():
    ids = {
        identity(by_hand(), *rest)
        for rest in [
            ("fp32", CONTENTS),
            ("bf16", CONTENTS),
            ("fp32", CONTENTS | {"data": "cc"}),
            ("fp32", CONTENTS | {"model": "cc"}),
            ("fp32", CONTENTS | {"init": "cc"}),
        ]
    }
    assert len(ids) == 5


def test_identity_leaves_the_config_as_it_was():
    one = by_hand()
    before = copy.deepcopy(one)
    identity(one, "fp32", CONTENTS)
    assert one == before
    assert to_dict(one)["optimizer"]["name"] == "adamw"


@pytest.mark.long
@pytest.mark.parametrize(
    "line",
    [
        ("task=country_capital,plus_two", "init=cat,vocab", "seed=0,1"),
        (
            "model=tiny,gpt2",
            "model.learning_rate=0.5,0.7",
            "optimizer=adamw,study3",
        ),  # the learning rate comes from the model
        (
            "template=bare,study3",
            "template.max_new_tokens=3,5",
            "init=word",
            "init.text=cat,dog",
        ),  # a section and a key in it
    ],
)
def test_a_grid_composed_option_by_option_equals_each_run_composed_whole(line):
    axes = [[f"{part.partition('=')[0]}={value}" for value in part.partition("=")[2].split(",")] for part in line]
    assert compose_grid(line, multirun=True) == [compose(job) for job in itertools.product(*axes)]


# ------------------------------------------------------------ seeds


def test_one_seed_gives_three_that_differ_by_use_task_init_and_seed():
    configs = [by_hand(), by_hand(seed=1), with_value("task.name", "plus_two"), with_value("init.name", "dog")]
    drawn = [n for each in configs for n in derived_seeds(each).values()]
    assert len(set(drawn)) == 12  # in particular, no data order is shared across inits
    assert all(0 <= n < 2**63 for n in drawn)
    assert list(derived_seeds(by_hand())) == ["init", "order", "dropout"]
    assert derived_seeds(by_hand()) == {
        "init": 7132469336943669062,
        "order": 6265321656316924947,
        "dropout": 318760769094451654,
    }


def test_a_seed_set_by_hand_is_that_seed_and_leaves_the_others_also_when_it_is_zero():
    free = derived_seeds(by_hand())
    for use in free:
        for n in (0, 7):
            assert derived_seeds(with_value(f"seeds.{use}", n)) == free | {use: n}


@pytest.mark.parametrize(("text", "said"), [("gpt2-xl", "gpt2_xl"), ("a b/ç", "a_b"), ("_é_", "_"), ("3.5", "3.5")])
def test_a_slug_is_fit_for_a_folder_name_and_holds_no_separator(text, said):
    assert slug(text) == said


def test_a_logger_that_is_named_twice_follows_once():
    config = by_hand()
    config.logger = ["wandb", "tensorboard", "wandb"]
    assert loggers(config) == ["wandb", "tensorboard"]


# ------------------------------------------------------------ models and data of one's own


def test_each_model_of_a_grid_has_its_own_default_rate():
    grid = compose_grid(["model=tiny,gpt2", "optimizer.lr=0.05,null"], multirun=True)
    rates = [(c.model.name, c.optimizer.lr, c.optimizer.lr_in_embedding_units) for c in grid]
    assert rates == [
        ("tiny", 0.05, None),
        ("tiny", 0.01, None),
        ("gpt2", 0.05, None),
        ("gpt2", None, schema.DEFAULT_RATE),
    ]


def test_a_model_that_a_file_names_inherits_nothing_of_tinys(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/first.yaml").write_text("# @package _global_\nmodel:\n  name_or_path: org/other\n")
    config = compose(["+experiment=first", f"hydra.searchpath=[file://{tmp_path}]"])
    assert (config.model.name, config.optimizer.lr) == ("other", None)
    assert compose(["model.name_or_path=tiny"]) == compose([])


def test_a_file_of_ones_own_is_called_after_itself_wherever_it_is_named_from(tmp_path, monkeypatch):
    folder = tmp_path / "french"
    folder.mkdir()
    (folder / "train.csv").write_text("input,label\na,b\n")
    monkeypatch.chdir(folder)
    names = {compose(["task=custom", f"task.source.path={path}"]).task.name for path in (".", "../french", folder)}
    (folder / "README.md").write_text("notes")
    names.add(compose(["task=custom", "task.source.path=."]).task.name)
    assert len(names) == 1 and re.fullmatch("french-[0-9a-f]{4}", names.pop())


@pytest.mark.parametrize("labels", ["[no,no]", "['',yes]", "[yes,' yes']", "[[no,yes]]"])
def test_labels_are_different_words(labels):
    with pytest.raises(UserError, match=r"^task.labels"):
        validate(compose([f"task.labels={labels}"]))


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(UserError, match=r"^task.description: its value holds bytes that are no text in UTF-8$"):
        compose(['task.description="caf\udce9"'])


def test_a_unit_belongs_to_a_uniform_init():
    with pytest.raises(UserError, match=r"^init.unit=embedding: only init=uniform has a unit"):
        validate(compose(["init=cat", "init.unit=embedding"]))
    validate(compose(["init=uniform", "init.unit=absolute"]))


@pytest.mark.parametrize("key", ["template.bos", "task.split.kind", "evaluation.split", "device"])
@pytest.mark.parametrize("number", ["1", "2"])
def test_a_number_is_no_choice_among_words(key, number):
    with pytest.raises(UserError, match=f"^{key}: Invalid value '{number}', expected one of"):
        compose(["model=tiny", "task=country_capital", "init=cat", f"{key}={number}"])

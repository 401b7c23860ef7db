"""A condition chooses what pandas' query chooses, and is never run: it may come with somebody else's study."""

import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from promptgeo.config.paths import conf_dir
from promptgeo.errors import UserError
from promptgeo.runs.where import DEEPEST, LONGEST, rows_where

TABLE = pd.DataFrame(
    {
        "task": ["plus_one", "", None, "5", "b & c", "it's"],
        "seed": [0, 1, 2, 5, -1, 5],
        "lr": [0.1, np.nan, 5.0, 0.0, np.inf, -0.5],
        "single": np.array([0.1, np.nan, 5.0, 0.0, 1.0, -0.5], np.float32),
        "digits": ["0", "1", "02", "5", "-1", ""],
        "mixed": pd.Series([5, "5", None, 0.1, True, ""], dtype=object),
        "none": pd.Series([None] * 6, dtype=object),
        "flag": [True, False, True, True, False, False],
        "whole": pd.Series([0, 1, None, 5, -1, 5], dtype="Int64"),
        "kind": pd.Categorical(["a", "b", None, "a", "5", ""]),
        "training.early_stopping.patience": [5.0, np.nan, 5.0, 3.0, np.nan, 1.0],
        "odd name's": [0, 1, 2, 3, 4, 5],
    }
)
COLUMNS = [name if name.isidentifier() else f"`{name}`" for name in TABLE.columns]
LITERALS = ["5", "0.1", "-1", "+1", "-0.5", "0", "True", "False", "None", "''", "'5'", '"plus_one"', "'b & c'", "1e400"]
SIGNS = ["==", "!=", "<", "<=", ">", ">="]
SIZED = re.compile(r"single [<>]=? '5'|'5' [<>]=? single")
LISTS = ["[5, 1]", "('5', 'plus_one')", "[None]", "[]", "[-1, 0.1, True]", "['', None, 5]", "[False]"]


def same_as_pandas(condition: str) -> int:
    """1 where both choose rows, 0 where both refuse."""
    try:
        if SIZED.search(condition):
            raise TypeError("pandas makes a number of a text beside float32")
        expected = TABLE.query(condition).index.tolist()
    except Exception:  # pandas raises whatever the comparison does
        with pytest.raises(UserError, match="has no answer"):
            rows_where(TABLE, condition)
        return 0
    assert rows_where(TABLE, condition) == expected, condition
    return 1


def test_every_column_compares_with_every_value_as_in_pandas():
    conditions = [" ".join(parts) for parts in itertools.product(COLUMNS, SIGNS, LITERALS)]
    conditions += [" ".join(parts) for parts in itertools.product(LITERALS, SIGNS, COLUMNS)]
    conditions += [" ".join(parts) for parts in itertools.product(COLUMNS, SIGNS, COLUMNS)]
    conditions += [" ".join(parts) for parts in itertools.product(COLUMNS, ["in", "not in"], LISTS)]
    drawn = np.random.default_rng(0).choice(conditions, 700, replace=False)
    assert sum(map(same_as_pandas, drawn)) > 350, "most can be answered"


def test_conditions_join_as_in_pandas():
    rng = np.random.default_rng(0)
    simple = [
        "task == 'plus_one'", "seed < 3", "lr != lr", "0 <= seed < 5", "digits == ''", "flag", "mixed in [5, '5']",
        "`training.early_stopping.patience` != 5", "-1 < seed <= lr < 6", "lr == None", "flag == (seed == 5)",
        "task not in ['', '5']", "2 > seed > 0 or flag",
    ]  # fmt: skip
    for _ in range(60):
        chosen = rng.choice(simple, rng.integers(2, 5))
        words = [f"{rng.choice(['', 'not ', '~'])}({part}) {rng.choice(['and', 'or', '&', '|'])}" for part in chosen]
        assert same_as_pandas(f"{' '.join(words)} flag")
    for loose in ("seed == 5 & lr < 1 | flag", "~flag and not seed == 5", "task == 'b & c'", "seed == 5|task == ''"):
        assert same_as_pandas(loose)


AUDITED: list[str] = []
"""What Python ran, opened or started."""
sys.addaudithook(lambda event, _: AUDITED.append(event) if event in ("os.system", "open", "exec") else None)
HOSTILE = [
    "task.__class__.__init__.__globals__['sys'].modules['os'].system('touch ran')",
    "seed == __import__('os').system('touch ran')",
    "@open('ran', 'w')",
    "seed == @sys",
    "task.str.len() > 3",
    "seed in [__import__('os').system('touch ran')]",
    "seed == [open('ran', 'w') for _ in [1]]",
    "(lambda: open('ran', 'w'))()",
    'f\'{open("ran", "w")}\' == task',
    "(x := seed) == 1",
    "seed + 1 == 2",
    "seed == 9**9**9",
    "seed == 'a' * 999999999",
    "task[0] == 'p'",
    "seed if flag else seed",
    "seed == {1: 2}",
    "seed in {1, 2}",
    "seed == ...",
    "task == b'plus_one'",
    "seed == 2j",
    "seed is None",
    "*seed",
    "task in seed",
    "task in 'plus_one'",
    "'plus_one' in task",
    "seed in [lr]",
    "seed",
    "'plus_one'",
    "not seed",
    "1 == 1",
    "True",
    "-flag",
    "seed = 5",
    "seed == 5; open('ran', 'w')",
    "import os",
    "",
    "`seed",
    "seed == '",
    "seed == 1\0",
    "index == 0",
    "__builtins__ == 1",
    "`open('ran', 'w')` == 1",
    "training.early_stopping.patience == 5",
    "~" * (LONGEST - 4) + "flag",
    "(" * 3000 + "flag" + ")" * 3000,
    "not " * (DEEPEST + 1) + "flag",
    "flag or " * LONGEST + "flag",
]


@pytest.mark.parametrize("condition", HOSTILE, ids=[text[:30] for text in HOSTILE])
def test_what_is_no_comparison_is_refused_in_a_line_and_nothing_runs(condition, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    AUDITED.clear()
    with pytest.raises(UserError) as refused:
        rows_where(TABLE, condition)
    assert not AUDITED and not any(Path().iterdir())
    assert len(str(refused.value)) < len(condition) + 500


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("task.str.len() > 3", "task.str.len() is not read in a condition; a condition compares columns with"),
        (
            "training.epochs == 5",
            "training.epochs is not read in a condition; a column with dots in its name stands in",
        ),
        ("`a.b` + 1 == 2", "`a.b` + 1 is not read in a condition; nothing is computed in a condition"),
        ("task == @name", "@ stands for a variable of Python, which a condition has none of"),
        ("task < 3", "task < 3 has no answer ("),
        ("seed", "seed is no comparison; compare the column with a value"),
        (
            "task == plus_one",
            "these runs have no column plus_one (a text stands in quotes); their columns: task, seed, lr",
        ),
        ("lr is None", "lr is None write == or !=; a column differs from itself where its value is missing: lr != lr"),
        ("task in 'b'", "'b' is no list; `in` asks whether a column's value is in a list"),
        ("'b' in task", "'b' is no column; `in` asks of a column whether its value is in a list"),
        ("seed = 5", "cannot be read ("),
    ],
)
def test_the_line_names_the_part_and_the_way_out(condition, said):
    with pytest.raises(UserError) as refused:
        rows_where(TABLE, condition)
    assert str(refused.value).startswith(f"{condition}: {said}"), refused.value


def test_conditions_of_studies_are_read():
    table = TABLE.assign(init="task_text", lr=1.0)
    found = 0
    for path in (Path(conf_dir()) / "sweep").glob("*.yaml"):
        study = OmegaConf.to_container(OmegaConf.load(path)).get("study") or {}
        for options in (study.get("analyses") or {}).values():
            if condition := (options or {}).get("_where_"):
                assert rows_where(table, condition) == table.query(condition).index.tolist() != []
                found += 1
    assert found >= 6


def test_a_long_list_of_names_is_read():
    assert rows_where(TABLE, f"task in {[f'task{k}' for k in range(500)] + ['5']}") == [3]

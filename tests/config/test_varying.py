"""What the runs of a grid are called: by the keys that tell them apart, and nothing else."""

from promptgeo.config.compose import compose_grid
from promptgeo.config.schema import flat
from promptgeo.config.varying import named, varying
from promptgeo.training.cell import cells_of, titled


def names(*line: str) -> list[str]:
    grid = [flat(config) for config in compose_grid(line, multirun=True)]
    return [named(config, varying(grid)) for config in grid]


def test_a_run_is_called_by_what_the_command_varies():
    assert names("task=plus_one,plus_two", "init=cat,dog", "seed=1") == [
        "task=plus_one init=cat",
        "task=plus_one init=dog",
        "task=plus_two init=cat",
        "task=plus_two init=dog",
    ]
    assert names("optimizer.lr=1e-3,0.5", "prompt.length=null,4", "training.dropout=true,false")[:3] == [
        "optimizer.lr=0.001 prompt.length=null training.dropout=true",
        "optimizer.lr=0.001 prompt.length=null training.dropout=false",
        "optimizer.lr=0.001 prompt.length=4 training.dropout=true",
    ]


def test_what_follows_from_a_name_or_decides_nothing_is_left_out():
    # A task brings its own template and data, a model its learning rate.
    assert names("task=custom,sentiment", "model=tiny,gpt2", "seed=3")[0] == "model=tiny task=custom"
    assert names("seed=0") == [""]
    grid = [{"name": "a", "outputs": "x", "seed": 1}, {"name": "b", "outputs": "y", "seed": 1}]
    assert varying(grid) == []
    assert varying([]) == []


def test_a_place_is_called_by_its_last_part_and_a_long_text_is_cut():
    grid = [
        {"task.source.path": f"/home/somebody/{k}/rows{k}.csv", "template.text": f"{k}\n" + "x" * 99} for k in (1, 2)
    ]
    keys = varying(grid)
    assert keys == ["task.source.path"] and named(grid[1], keys) == "task.source.path=rows2.csv"
    called = named(grid[1], ["template.text"])
    assert called == f"template.text=2 {'x' * 37}…"


def test_cells_have_a_title_where_a_logger_asks_for_it_and_the_same_identity():
    line = ("task=plus_two", "init=cat,dog", "model=tiny")
    plain = cells_of(compose_grid(line, multirun=True))
    followed = titled(cells_of(compose_grid([*line, "logger=wandb"], multirun=True)))
    assert [cell.title for cell in followed] == ["init=cat", "init=dog"]
    assert [cell.title for cell in titled(plain)] == ["", ""]
    assert [(cell.id, cell.folder) for cell in followed] == [(cell.id, cell.folder) for cell in plain]

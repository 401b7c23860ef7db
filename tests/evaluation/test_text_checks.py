"""Labels that a tokenizer does not give back are refused while planning; accepted answers are scored."""

import shutil

import pytest
import torch

import reference
import tokenizers_like
from promptgeo import FrozenLM, UserError, evaluate
from promptgeo.config.schema import LabelTokens, LongerLabels, Scoring, Template
from promptgeo.data.tasks import Example, Task
from promptgeo.evaluation import text_checks
from promptgeo.evaluation.rules import Continuation, check_scoring, rule_of

LINE = Template("input_label", "Input: {input}\nLabel:", " {label}", "\n", Scoring.line, 9)
PREFIX = Template("study3", "Input: {input}\nLabel: ", "{label}", "", Scoring.prefix, 9)
TOKEN = Template("bare", "{input}", "{label}", "", Scoring.token, 1)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(text_checks, "_said", set())


@pytest.fixture(scope="module")
def lms(model_folders):
    """A random model under several tokenizers."""
    model = reference.original(model_folders["llama"])
    model.resize_token_embeddings(800)
    return {like: FrozenLM(model, tokenizers_like.make(like)) for like in ("llama2", "lower", "spaces", "nfc")}


def check(lm, template, *labels: str, limit: int = 16, inputs: str = "x", label_set=None) -> None:
    examples = [Example(i, inputs, label) for i, label in enumerate(labels)]
    task = Task("t", examples, [], [], template, label_set)
    text_checks.check_texts(lm, task, limit, examples, task.rows(lm, examples, 2))


@pytest.mark.parametrize(
    ("like", "template", "label", "back"),
    [
        ("lower", LINE, "Paris", "paris"),
        ("lower", PREFIX, "Paris", "paris"),
        ("nfc", LINE, "cafe\u0301", "caf\u00e9"),
        ("spaces", LINE, "walk", "walk"),  # its end is lost
        ("llama2", LINE, "</s> walk", "walk"),
        ("llama2", PREFIX, "日本", ""),
    ],
)
def test_a_label_that_the_tokenizer_does_not_give_back_is_refused(lms, like, template, label, back):
    with pytest.raises(UserError) as error:
        check(lms[like], template, "walked" if like != "spaces" else label, label)
    message = str(error.value)
    number = 0 if like == "spaces" else 1
    assert message.startswith(f"task t, example {number}: its label {label!r} could never be scored as correct: ")
    assert back in message and "\n" not in message


def test_an_end_that_the_tokenizer_loses_is_named_not_the_label(lms):
    with pytest.raises(UserError, match=r"does not give template.end='\\n' back, .* set another template.end$"):
        check(lms["spaces"], LINE, "walk")


@pytest.mark.parametrize(
    ("like", "labels", "says"),
    [
        ("lower", ("A", "a"), "example 1: its label 'a' is the same token as the label 'A' for this model ('a')"),
        ("llama2", ("日",), "example 0: its label '日' is the token '<unk>' for this model, which stands for no text"),
    ],
)
def test_single_tokens_that_stand_for_no_label_or_two_are_refused(lms, like, labels, says):
    template = Template(**{**vars(TOKEN), "label_tokens": LabelTokens.anchored})
    with pytest.raises(UserError) as error:
        check(lms[like], template, *labels)
    assert says in str(error.value)


def test_accepted_answers_that_can_never_be_correct_are_warned_of(lms, gpt2, caplog):
    def check_answers(lm, *answers: str, limit: int = 16) -> list[str]:
        caplog.clear()
        examples = [Example(0, "x", "cat", 1, answers)]
        task = Task("t", examples, [], [], LINE)
        text_checks.check_texts(lm, task, limit, examples, task.rows(lm, examples, 2))
        return caplog.messages

    (message,) = check_answers(lms["lower"], "Paris", "dog")
    assert message.startswith("task t: 1 accepted answers beside the labels are never scored as correct")
    assert "'Paris' of example 0" in message
    assert len(check_answers(gpt2, "N'Djamena", limit=3)) == 1
    assert check_answers(gpt2, "N'Djamena", "dog") == []


def test_special_tokens_that_a_cut_loses_are_warned_of(lms, caplog):
    examples = [Example(0, "a </s> cat and a dog", "cat")]
    task = Task("t", examples, [], [], LINE, max_input_tokens=4)
    text_checks.check_texts(lms["llama2"], task, 16, examples, task.rows(lms["llama2"], examples, 2))
    assert "inputs that task.max_input_tokens=4 cuts lose their special tokens, for instance '</s>'" in caplog.text


def test_a_cut_that_leaves_nothing_and_a_label_beyond_the_model_are_named(gpt2):
    with pytest.raises(UserError, match=r"task.max_input_tokens=1 leaves nothing of its input"):
        Task("t", [], [], [], LINE, max_input_tokens=1).rows(gpt2, [Example(0, "🙂🙂", "cat")], 2)
    with pytest.raises(UserError, match=r"its label alone takes \d+, and labels are never cut"):
        Task("t", [], [], [], LINE).rows(gpt2, [Example(0, "x", "7" * 5000)], 2)


@pytest.mark.parametrize("template", [LINE, PREFIX, TOKEN])
def test_labels_that_are_given_back_pass(lms, gpt2, template):
    labels = ["cat", "dog"] if template is TOKEN else ["cat", "N'Djamena", "Bogotá", "日本"]
    check(gpt2, template, *labels, limit=30)
    if template is not TOKEN:
        check(lms["llama2"], template, "cat", "N'Djamena", "a b", limit=30)
        check(lms["lower"], template, "cat", limit=30)


def test_a_label_longer_than_the_model_may_write_is_refused_or_counted(gpt2, caplog):
    n = len(gpt2.encode(" N'Djamena\n"))
    check(gpt2, LINE, "N'Djamena", limit=n)
    with pytest.raises(
        UserError,
        match=rf"^task t, example 1: its label .* takes {n} tokens, .* write {n - 1}: it is "
        rf"never correct; set evaluation.max_new_tokens={n} ",
    ):
        check(gpt2, LINE, "cat", "N'Djamena", limit=n - 1)
    published = Template(**{**vars(LINE), "longer_labels": LongerLabels.warn})
    for _ in range(2):
        check(gpt2, published, "cat", "N'Djamena", limit=n - 1)
    assert len(caplog.messages) == 1 and "(1 of 2 labels are longer)" in caplog.messages[0]


def test_the_check_is_made_while_planning_before_a_folder_is_made(model_folders, tmp_path):
    folder = tmp_path / "llama"
    shutil.copytree(model_folders["llama"], folder)
    tokenizer, model = tokenizers_like.make("lower"), reference.original(folder)
    tokenizer.save_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    with pytest.raises(UserError, match="could never be scored as correct"):
        reference.make_plan(folder, tmp_path / "out", "task=capitalize_first_letter")
    assert not (tmp_path / "out").exists()


def test_labels_of_a_set_that_cannot_be_told_apart_are_refused(lms, gpt2):
    with pytest.raises(UserError, match=r"^task.labels: 'No' and 'no' are the same tokens for this model$"):
        check(lms["lower"], Template(**{**vars(LINE), "label": "{label}"}), "no", label_set=["No", "yes", "no"])
    ids = [gpt2.encode(text) for text in ("cat", "cat dog")]
    assert ids[1][: len(ids[0])] == ids[0]
    with pytest.raises(UserError, match=r"^task.labels: the tokens of 'cat' begin those of 'cat dog', which could"):
        check(gpt2, PREFIX, "cat", "cat dog", label_set=["cat dog", "pen", "cat"])
    check(gpt2, LINE, "cat", "cat dog", label_set=["cat dog", "pen", "cat"])


def test_a_label_that_begins_another_is_warned_of_under_prefix_scoring(gpt2, caplog):
    check(gpt2, PREFIX, "Nigeria", "Chad", "Niger")
    (message,) = caplog.messages
    assert "scores 'Nigeria' as correct where 'Niger' is wanted (1 labels begin another)" in message
    check(gpt2, LINE, "Nigeria", "Niger")
    both = [Example(0, "x", "City", 1, ("City of Paris",)), Example(1, "x", "Lima", 1, ())]  # either is right
    task = Task("t", both, [], [], PREFIX)
    text_checks.check_texts(gpt2, task, 30, both, task.rows(gpt2, both, 2))
    assert len(caplog.messages) == 1


def test_inputs_that_hold_special_tokens_are_warned_of_and_the_templates_own_are_meant(lms, caplog):
    lm = lms["llama2"]
    check(lm, LINE, "cat", inputs="a cat")
    with_bos = Template(**{**vars(LINE), "text": "<s>{input}</s>:"})
    check(lm, with_bos, "cat", inputs="a cat")
    assert caplog.messages == []
    check(lm, with_bos, "cat", "dog", inputs="a </s> cat")
    (message,) = caplog.messages
    assert message.startswith("task t: 2 inputs hold text that this tokenizer reads as a special token, for instance ")
    assert "'</s>' in example 0 ('a </s> cat')" in message
    check(lm, LINE, "cat", inputs="日本")
    assert "'<unk>'" in caplog.messages[1]


@pytest.mark.parametrize(
    ("template", "wrote", "correct"),
    [
        (LINE, " City of Paris\n", True),
        (LINE, " Paris\n", True),
        (LINE, " City of Par\n", False),
        (PREFIX, "City of Paris!", True),
        (PREFIX, "City of Par!", False),
        (TOKEN, "dog", True),
        (TOKEN, "cat", True),
        (TOKEN, "pen", False),
    ],
)
def test_any_accepted_answer_is_correct(gpt2, template, wrote, correct):
    answers = ("cat", ("dog",)) if template is TOKEN else ("Paris", ("Lutetia", "City of Paris"))
    example = Example(0, "France", answers[0], 1, answers[1])
    (row,) = Task("t", [example], [], [], template).rows(gpt2, [example], 0)
    assert gpt2.decode(row.label.tolist()).strip() == answers[0]  # the first is trained
    rule, ids = rule_of(template), gpt2.encode(wrote)
    check_scoring(template, [example], [row])
    assert rule.is_correct(Continuation(gpt2, ids), example, row) == correct
    if correct and not rule.forced:
        assert all(rule.may_become_correct(Continuation(gpt2, ids[:k]), example) for k in range(1, len(ids)))


def test_a_terminator_in_any_accepted_answer_is_refused(gpt2):
    example = Example(3, "x", "a", 1, ("b\nc",))
    with pytest.raises(UserError, match=r"example 3: its label \('b\\nc'\) holds the terminator"):
        check_scoring(LINE, [example], Task("t", [example], [], [], LINE).rows(gpt2, [example], 0))


def test_evaluation_scores_every_accepted_answer(gpt2):
    """What the model writes becomes a second answer: each example is then correct."""
    examples = [Example(i, word, "zzz") for i, word in enumerate(("cat", "dog", "pen"))]
    prompt = torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0))
    task = Task("t", [], [], examples, PREFIX)
    before = evaluate(gpt2, prompt, task, outputs=True)
    assert not before.correct.any()
    answered = [
        Example(e.id, e.input, e.label, 1, (text.strip(),)) for e, text in zip(examples, before.outputs[0], strict=True)
    ]
    task = Task("t", [], [], answered, PREFIX)
    assert all(text.strip() for text in before.outputs[0])
    assert evaluate(gpt2, prompt, task).correct.all()

"""How does a tokenizer's chat template write an example? As one text, which says the same wherever it is read."""

from dataclasses import replace
from datetime import datetime
from functools import lru_cache

from promptgeo.config.schema import Model, Template
from promptgeo.errors import UserError
from promptgeo.model.loading import read_tokenizer

USER, ASSISTANT = "promptgeo-user-turn", "promptgeo-assistant-turn"
"""Stand in the turns while the chat template is rendered."""
TODAY = datetime(2024, 7, 26)
"""For chat templates that write the date (Llama 3.2 falls back on this one): else a run would be another every day."""


def with_turns_written_out(template: Template, model: Model) -> Template:
    """A template with chat=true as one without: its turns, written out in the chat template of the model's tokenizer.

    Any other template is returned as it is. Raises UserError where there is no chat template, or none that takes a
    user's and an assistant's turn.
    """
    if not template.chat:
        return template
    key = f"template={template.name}, model.name_or_path={model.name_or_path}"
    before, between, after = _rendered(key, model.name_or_path, model.revision, model.trust_remote_code)
    user = template.text if "{prompt}" in template.text else "{prompt}" + template.text
    # A space before the label is the label's: "x Paris" is not tokenised as "x " and "Paris".
    text = between.rstrip(" ")
    label = between[len(text) :] + template.label
    return replace(template, text=before + user + text, label=label, end=template.end or after, chat=False)


@lru_cache(maxsize=16)
def _rendered(key: str, name_or_path: str, revision: str | None, trust_remote_code: bool) -> tuple[str, str, str]:
    """What the chat template writes before the user's turn, between the two, and to end the assistant's."""
    tokenizer = read_tokenizer(name_or_path, revision, trust_remote_code)
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(f"{key}: its tokenizer has no chat template; take an instruction-tuned model or template=...")
    turns = [{"role": "user", "content": USER}, {"role": "assistant", "content": ASSISTANT}]
    try:
        chat = tokenizer.get_chat_template()
        text = tokenizer.apply_chat_template(
            turns,
            chat_template=_fixed_date() + chat if "strftime_now" in chat else chat,
            tokenize=False,
            enable_thinking=False,
        )
    except Exception as error:  # a chat template is a program, and may raise anything
        reason = " ".join(str(error).split())
        raise UserError(f"{key}: its chat template takes no user and assistant turns: {reason}") from error
    if not (text.count(USER) == text.count(ASSISTANT) == 1 and text.index(USER) < text.index(ASSISTANT)):
        raise UserError(f"{key}: its chat template does not write the user's and the assistant's turn once, in order")
    before, _, rest = text.partition(USER)
    between, _, after = rest.partition(ASSISTANT)
    # A newline after the turn's end belongs to the next turn.
    end = after.rstrip() or after or tokenizer.eos_token
    if not end:
        raise UserError(f"{key}: its chat template does not end the assistant's turn: set template.end=")
    return before, between, end


def _fixed_date() -> str:
    """What makes a chat template write TODAY: a macro of the name that transformers gives its clock."""
    codes = "".join(f"|replace('%{code}', '{TODAY.strftime('%' + code)}')" for code in "aAbBdHIjmMpSyY")
    return f"{{%- macro strftime_now(form) -%}}{{{{ form{codes} }}}}{{%- endmacro %}}"

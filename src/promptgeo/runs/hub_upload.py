"""How does an exported folder get to the hub? Through the hub's own client, into a repository of its own."""

from pathlib import Path
from typing import Any

from promptgeo.data.files import first_line
from promptgeo.errors import UserError

_GIVEN = {".gitattributes"}
"""What the hub puts into a new repository."""


def require_hub() -> Any:
    """The hub's client. Raises UserError where it is not installed or has no token."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("--push-to-hub: huggingface_hub is not installed; pip install huggingface_hub") from error
    if huggingface_hub.get_token() is None:
        raise UserError("--push-to-hub: there is no token of the hub here; give one with: hf auth login")
    return huggingface_hub.HfApi()


def upload(hub: Any, folder: str | Path, name: str) -> str:
    """Send a folder's files to a repository, which is made private where it is new. Returns its address.

    Raises UserError where other files lie there already, or the hub refuses.
    """
    files = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}
    try:
        made = hub.create_repo(name, private=True, exist_ok=True)
        if other := sorted(set(hub.list_repo_files(made.repo_id)) - _GIVEN - files):
            raise UserError(f"--push-to-hub {name}: holds something else already ({other[0]}); choose another name")
        hub.upload_folder(repo_id=made.repo_id, folder_path=str(folder), commit_message="Soft prompt from promptgeo")
    except UserError:
        raise
    except Exception as error:  # of the network, of the hub, of the name: each of a family of its own
        raise UserError(f"--push-to-hub {name}: {first_line(error)}; what was exported lies in {folder}") from error
    return str(made)

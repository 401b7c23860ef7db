"""The exceptions a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: one line that names the key, file or example and the way out. Exit status 2."""


class RunFailed(Exception):
    """A run failed; the others of its command are complete."""

"""Errors that a user can act on."""


class InputError(ValueError):
    """What the user gave is wrong: the message says what was found, what was expected and what to do.

    The command line prints it as one line and exits with 2.
    """

"""The one exception a user is meant to see."""


class UserError(Exception):
    """Something in the user's input is wrong.

    The message names the thing, what was got, what was expected and what to do. The command line prints it without a
    traceback and exits with code 2.
    """

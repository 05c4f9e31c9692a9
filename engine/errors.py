"""The one exception a user is meant to see, and what it tells of others."""


class UserError(Exception):
    """Something in the user's input is wrong.

    The message names the thing, what was got, what was expected and what to do. The command line prints it without a
    traceback and exits with code 2.
    """


def first_line(error: Exception) -> str:
    """Of what an error of another library says, or its kind where it says nothing: a message holds one line of it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

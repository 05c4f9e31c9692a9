"""The one exception of the data path that a user is meant to see."""


class DataError(ValueError):
    """The images, or what was asked of them, cannot be used; the message says which, why and what to do."""

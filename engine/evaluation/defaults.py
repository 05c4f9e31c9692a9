"""The metrics' names and every default of evaluations, once. Standard library only: the command line and the schema
read them."""

NAMES = ("fid", "kid", "precision", "recall", "density", "coverage", "lpips", "swd")
AUTO = "auto"
COUNT = 5_000  # samples, as in the paper
SEED = 0
ALARM = 0.6  # docs/evaluate.md says what was tried


def parse_metrics(text: str) -> tuple[str, ...]:
    """A comma list of names, in its order.

    Raises:
        ValueError: none, an unknown one, or one named twice.
    """
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in NAMES]
    if unknown or len(set(names)) < len(names) or not names:
        problem = f"unknown metric {unknown[0]!r}" if unknown else "one is named twice" if names else "none is named"
        raise ValueError(f"{problem}; expected a comma list of {', '.join(NAMES)}")
    return names

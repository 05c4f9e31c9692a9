"""The tables that the benchmarks print."""

from rich.table import Table


def figures_table(first: str, *columns: str) -> Table:
    """A table with one column of words and others of figures."""
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table

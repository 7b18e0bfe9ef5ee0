"""Plain tables for a terminal."""

from collections.abc import Sequence


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the rows under their header, columns aligned: the first to the left, others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(text.rjust(w) for text, w in others)])

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])

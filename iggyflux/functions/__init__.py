"""The functions of the expression language: one table, from which they are checked, called, tested and documented.

A new function is one entry in the file of its group: the tests that walk the table cover it, and the reference lists
it.  No function reads a clock, draws a random number or does I/O.
"""

from __future__ import annotations

from iggyflux.functions.encodings import ENCODINGS
from iggyflux.functions.numbers import NUMBERS
from iggyflux.functions.regexes import REGEXES
from iggyflux.functions.scope import META_NAMES, SCOPE, header_value
from iggyflux.functions.standard import STANDARD
from iggyflux.functions.table import ConstantError, Function, Parameter
from iggyflux.functions.text import TEXT
from iggyflux.functions.times import TIMES
from iggyflux.functions.values import VALUES

__all__ = ["FUNCTIONS", "GROUPS", "META_NAMES", "ConstantError", "Function", "Parameter", "header_value"]

FUNCTIONS: dict[str, Function] = {
    function.name: function
    for function in sorted(
        (*STANDARD, *SCOPE, *VALUES, *TEXT, *REGEXES, *NUMBERS, *TIMES, *ENCODINGS), key=lambda function: function.name
    )
}
"""Every function by its name, in the order of the names."""

GROUPS: tuple[str, ...] = (
    "message",
    "values",
    "text",
    "regular expressions",
    "numbers",
    "arrays",
    "objects",
    "time",
    "encoding",
)
"""The groups of functions in the order of the reference."""

"""The functions of the expression language: one table, from which they are checked, called, tested and documented.

A new function is one entry in one file of its group; it inherits the tests that walk the table and its page in the
reference.  Nothing here reads a clock, draws a random number or speaks to anybody.
"""

from __future__ import annotations

from iggyflux.functions.scope import META_NAMES, SCOPE
from iggyflux.functions.standard import STANDARD
from iggyflux.functions.table import ConstantError, Function, Parameter

__all__ = ["FUNCTIONS", "META_NAMES", "ConstantError", "Function", "Parameter"]

FUNCTIONS: dict[str, Function] = {
    function.name: function for function in sorted((*STANDARD, *SCOPE), key=lambda f: f.name)
}
"""Every function by its name, in the order of the names."""

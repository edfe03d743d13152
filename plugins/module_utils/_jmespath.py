# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""JMESPath expressions (https://jmespath.org) that users write in options."""

from __future__ import annotations

from ._errors import KubeError
from ._values import described, plain

#: Of modules that return one thing rather than a list of objects.
QUERY_ARGUMENTS = {"query": {"type": "str"}}


class ExpressionError(KubeError):
    """An expression can't be read or evaluated; the text names the place, the expression and the reason."""


class Expression:
    """A compiled expression.

    :param place: how messages call where it is written, such as ``variables.cores``.
    :raises ExpressionError: it isn't a JMESPath expression, or the Python package is missing.
    """

    def __init__(self, place, text):
        if not isinstance(text, str) or not text.strip():
            raise ExpressionError("%s: must be a JMESPath expression, but is %s." % (place, described(text)))
        # Imported here, because few users write expressions and everybody would wait for it.
        try:
            import jmespath
        except ImportError:
            raise ExpressionError(
                "%s: JMESPath expressions need the Python package jmespath on this host: pip install jmespath." % place
            ) from None
        self.place, self.text = place, plain(text)
        # Not all that can be wrong is one of JMESPath's own errors: numbers of thousands of digits, for example.
        self._errors = (jmespath.exceptions.JMESPathError, ValueError, TypeError, LookupError, RecursionError)
        try:
            self._parsed = jmespath.compile(self.text)
        except self._errors as exc:
            raise ExpressionError("%s: %r isn't a JMESPath expression: %s" % (place, self.text, _told(exc))) from None

    @classmethod
    def of(cls, params, option):
        """Return the Expression that an option of a module has, or None."""
        return None if params[option] is None else cls(option, params[option])

    def extend(self, result, subject):
        """Return a module's result with C(query_result), which the expression selects of its other values.

        :raises ExpressionError: as those of C(search).
        """
        values = {name: value for name, value in result.items() if name != "changed"}
        return dict(result, query_result=self.search(values, subject))

    def search(self, document, subject):
        """Return what the expression selects of a document, None where there is nothing.

        :param subject: how messages call the document, such as ``default/web``.
        :raises ExpressionError: a function of the expression got a value of the wrong type.
        """
        try:
            return self._parsed.search(document)
        except self._errors as exc:
            raise ExpressionError("%s: %r fails for %s: %s" % (self.place, self.text, subject, _told(exc))) from None


def _told(exc):
    """Return the reason, with the column where the parser knows it; without the drawing that goes with it."""
    position = getattr(exc, "lex_position", None)
    position = position if position is not None else getattr(exc, "lexer_position", None)
    reason = str(exc).partition("\n")[0].partition(": Parse error at column")[0].strip().rstrip(":.")
    where = " (at column %d)" % (position + 1) if isinstance(position, int) and position >= 0 else ""
    return "%s%s." % (reason, where)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiling and running expressions. The library is Google's own (cel-cpp), loaded when the first expression comes.

Two environments: one with the types of Kubernetes' values checks an expression when its author brings it, one without
types runs it on plain data. An evaluation ends after 10,000 steps of comprehensions, whatever it does.
"""

import functools
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from turtles.standalone.apiserver.schema.cel import library
from turtles.standalone.apiserver.schema.cel.library.authorizer import ACCESS, AccessCheck
from turtles.standalone.apiserver.schema.cel.library.function import Function

log = logging.getLogger(__name__)

_STATUS = re.compile(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$")
_MIXED = re.compile(
    r"found no matching overload for '_(?:<|<=|>|>=|==|!=)_' "
    r"applied to '\((?:int|uint|double), (?:int|uint|double)\)'"
)
_STRUCT = re.compile(r" not found in struct '[^']*'")


class CompileError(Exception):
    """An expression that can't be; the text is the compiler's."""


class EvaluationError(Exception):
    """An expression that gives no value."""


class BudgetError(EvaluationError):
    """An evaluation that took too many steps."""


def _library() -> Any:
    from cel_expr_python import cel

    return cel


@functools.cache
def _types() -> dict[str, Any]:
    kinds = _library().Type
    types = {
        "int": kinds.INT,
        "uint": kinds.UINT,
        "double": kinds.DOUBLE,
        "bool": kinds.BOOL,
        "string": kinds.STRING,
        "bytes": kinds.BYTES,
        "dyn": kinds.DYN,
        "google.protobuf.Timestamp": kinds.TIMESTAMP,
        "google.protobuf.Duration": kinds.DURATION,
        "null": kinds.NULL,
    }
    types["map(string, list(string))"] = kinds.Map(kinds.STRING, kinds.List(kinds.STRING))
    types.update({f"list({name})": kinds.List(one) for name, one in list(types.items()) if "(" not in name})
    return types


def type_named(name: str) -> Any:
    """Return the library's type that CEL writes as ``name``; any other name is a message's."""
    if name in library.TAGGED:
        return _library().Type.AbstractType(name)
    cel_type = _types().get(name)
    if cel_type is not None:
        return cel_type
    kinds = _library().Type
    return kinds.List(type_named(name[5:-1])) if name.startswith("list(") else kinds(name)


def _running(name: str) -> str:
    if name in library.TAGGED:
        return "map"
    return "list" if name.startswith("list(") else "map" if name.startswith("map(") else name


def _running_type(name: str) -> Any:
    kinds = _library().Type
    return {"map": kinds.MAP, "list": kinds.LIST}.get(name) or _types()[name]


def _guarded(call: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*values: Any) -> Any:
        try:
            return call(*values)
        except (ValueError, TypeError, OverflowError, ArithmeticError, AttributeError) as error:
            raise ValueError(str(error)) from None

    return guarded


def _by_name() -> Iterator[tuple[str, list[Function]]]:
    functions: dict[str, list[Function]] = {}
    for function in library.FUNCTIONS:
        functions.setdefault(function.name, []).append(function)
    yield from functions.items()


@functools.cache
def _declared(checked: bool) -> list[Any]:
    """Return the declarations of the functions; those to run differ by what values are then, not by their types."""
    cel = _library()
    declared = []
    for name, functions in _by_name():
        overloads, seen = [], set()
        for number, function in enumerate(functions):
            names = function.parameters if checked else tuple(_running(one) for one in function.parameters)
            if (names, function.member) in seen:
                continue
            seen.add((names, function.member))
            types = [type_named(one) if checked else _running_type(one) for one in names]
            if checked:
                result, more = type_named(function.result), {}
            else:
                # One function stands for overloads of all list types: what it gives isn't known beforehand.
                alone = len({one.result for one in functions}) == 1
                result = _running_type(_running(function.result)) if alone else cel.Type.DYN
                more = {"impl": _guarded(function.call)}
            identity = f"{name.replace('.', '_')}_{number}"
            overloads.append(
                cel.Overload(identity, return_type=result, parameters=types, is_member=function.member, **more)
            )
        declared.append(cel.FunctionDecl(name, overloads))
    return declared


def _extensions() -> list[Any]:
    from cel_expr_python.ext import ext_bindings, ext_math, ext_optional

    return [ext_optional.ExtOptional(), ext_bindings.ExtBindings(), ext_math.ExtMath()]


_VARIABLES = (
    "self",
    "oldSelf",
    "hasOldSelf",
    "givenOldSelf",
    "object",
    "oldObject",
    "request",
    "authorizer",
    "namespaceObject",
    "params",
    "variables",
)


@functools.cache
def _runtime() -> Any:
    cel = _library()
    variables = dict.fromkeys(_VARIABLES, cel.Type.DYN)
    return cel.NewEnv(variables=variables, extensions=_extensions(), functions=_declared(False))


@functools.lru_cache(maxsize=2048)
def _program(expression: str) -> Any:
    return _runtime().compile(expression, disable_check=True)


class Checker:
    """Checks expressions against types.

    :param variables: name -> type as :func:`type_named` takes it.
    :param pool: protobuf descriptors of the types that aren't CEL's own.
    """

    def __init__(self, variables: Mapping[str, str], pool: Any = None) -> None:
        cel = _library()
        more = {} if pool is None else {"descriptor_pool": pool}
        types = {name: type_named(one) for name, one in variables.items()}
        self._env = cel.NewEnv(variables=types, extensions=_extensions(), functions=_declared(True), **more)

    def check(self, expression: str, wanted: str = "bool", prefix: str = "", suffix: str = "") -> None:
        """Check that an expression can be compiled and is of the type wanted.

        :param prefix: text before the expression, which the messages don't count.
        :raises CompileError: with the compiler's words.
        """
        lines = prefix.count("\n")
        try:
            compiled = self._env.compile(f"{prefix}{expression}{suffix}")
        except RuntimeError as error:
            text = _relevant(str(error), lines)
            if text:
                raise CompileError(f"compilation failed: {text}") from None
            return
        type_name = compiled.return_type().name().lower()
        if type_name not in (wanted, "dyn", "any"):
            raise CompileError(f"must evaluate to {wanted}")


def _relevant(text: str, lines: int) -> str:
    """Return the compiler's errors but those about numbers of different types, which Kubernetes compares."""
    text = re.sub(r"\s*\[[A-Z_]+\]$", "", _STATUS.sub("", text, count=1))
    parts = re.split(r"(?=^ERROR: )", text, flags=re.MULTILINE)
    kept = "".join(part for part in parts if part.strip() and not _MIXED.search(part)).rstrip()
    if lines:
        kept = re.sub(r"<input>:(\d+):", lambda match: f"<input>:{int(match[1]) - lines}:", kept)
    return _STRUCT.sub("", kept)


def evaluate(expression: str, data: Mapping[str, Any], access: AccessCheck | None = None) -> Any:
    """Return what an expression gives.

    :param data: the variables' values: plain data, protobuf's Timestamp and Duration.
    :param access: answers the variable ``authorizer``.
    :raises EvaluationError: it gives none.
    """
    token = ACCESS.set(access)
    try:
        result = _program(expression).eval(data=dict(data))
        kind = result.type().name()
        value = result.value() if kind == "ERROR" else result.plain_value()
    except RuntimeError as error:
        if "budget exceeded" in str(error):
            raise BudgetError("operation cancelled: actual cost limit exceeded") from None
        raise EvaluationError(_reason(str(error))) from None
    except (TypeError, ValueError) as error:
        raise EvaluationError(_reason(str(error))) from None
    finally:
        ACCESS.reset(token)
    if kind == "ERROR":
        if str(value).startswith("RESOURCE_EXHAUSTED"):
            raise BudgetError("operation cancelled: actual cost limit exceeded")
        raise EvaluationError(_reason(str(value)))
    return value


def _reason(text: str) -> str:
    text = _STATUS.sub("", text, count=1)
    if match := re.match(r'Key not found in map : "?(.*?)"?$', text):
        return f"no such key: {match[1]}"
    if match := re.match(r"Index error: index=(-?\d+)", text):
        return f"index out of bounds: {match[1]}"
    if text.startswith("No matching overloads found"):
        return "no such overload"
    return text.replace("divide by zero", "division by zero")


def loaded() -> bool:
    """Say whether the library has been loaded: a server without expressions does without it."""
    return "cel_expr_python" in sys.modules

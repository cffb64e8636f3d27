"""The code track: tiny Python functions as signature, docstring and body, each with a test that can be executed."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NUMBERS = ["x", "n", "value", "number"]
LISTS = ["items", "numbers", "values"]
TEXTS = ["text", "word", "name"]
VERBS = ["get", "find", "make", "compute", "take", "give"]
NOUNS = {
    "number": ["result", "score", "price", "total"],
    "list": ["items", "list", "values", "total"],
    "text": ["text", "part", "word", "name"],
}
SMALLEST, LARGEST_FIRST, LARGEST_SECOND = 2, 60, 20
ARGUMENTS = {"number": NUMBERS, "list": LISTS, "text": TEXTS}


@dataclass(frozen=True)
class Operation:
    """A family of functions: docstring and body hold {arg}, {c} and {d}; `reference(value, c, d)` is the result."""

    kind: str
    docstring: str
    body: str
    reference: Callable[[Any, int, int], Any]


LOOP = "total = 0\nfor item in {arg}:\n    if item %s {c}:\n        total += %s\nreturn total"
OPERATIONS = [
    Operation("number", "Return {arg} plus {c}.", "return {arg} + {c}", lambda x, c, d: x + c),
    Operation("number", "Return {arg} minus {c}.", "return {arg} - {c}", lambda x, c, d: x - c),
    Operation("number", "Return {arg} times {c}.", "return {arg} * {c}", lambda x, c, d: x * c),
    Operation(
        "number", "Add {c} to {arg} and multiply by {d}.", "return ({arg} + {c}) * {d}", lambda x, c, d: (x + c) * d
    ),
    Operation(
        "number", "Multiply {arg} by {c} and subtract {d}.", "return {arg} * {c} - {d}", lambda x, c, d: x * c - d
    ),
    Operation("number", "Return the remainder of {arg} divided by {c}.", "return {arg} % {c}", lambda x, c, d: x % c),
    Operation("number", "Check if {arg} is greater than {c}.", "return {arg} > {c}", lambda x, c, d: x > c),
    Operation("number", "Check if {arg} is less than {c}.", "return {arg} < {c}", lambda x, c, d: x < c),
    Operation("number", "Check if {arg} is divisible by {c}.", "return {arg} % {c} == 0", lambda x, c, d: x % c == 0),
    Operation("number", "Return the larger of {arg} and {c}.", "return max({arg}, {c})", lambda x, c, d: max(x, c)),
    Operation("number", "Return the smaller of {arg} and {c}.", "return min({arg}, {c})", lambda x, c, d: min(x, c)),
    Operation(
        "number",
        "Add {d} to {arg} if it is less than {c}.",
        "if {arg} < {c}:\n    return {arg} + {d}\nreturn {arg}",
        lambda x, c, d: x + d if x < c else x,
    ),
    Operation(
        "list",
        "Multiply every item of {arg} by {c}.",
        "return [item * {c} for item in {arg}]",
        lambda x, c, d: [i * c for i in x],
    ),
    Operation(
        "list",
        "Add {c} to every item of {arg}.",
        "return [item + {c} for item in {arg}]",
        lambda x, c, d: [i + c for i in x],
    ),
    Operation(
        "list",
        "Keep the items of {arg} greater than {c}.",
        "return [item for item in {arg} if item > {c}]",
        lambda x, c, d: [i for i in x if i > c],
    ),
    Operation(
        "list",
        "Keep the items of {arg} less than {c}.",
        "return [item for item in {arg} if item < {c}]",
        lambda x, c, d: [i for i in x if i < c],
    ),
    Operation(
        "list",
        "Sum the items of {arg} greater than {c}.",
        LOOP % (">", "item"),
        lambda x, c, d: sum(i for i in x if i > c),
    ),
    Operation(
        "list",
        "Sum the items of {arg} less than {c}.",
        LOOP % ("<", "item"),
        lambda x, c, d: sum(i for i in x if i < c),
    ),
    Operation(
        "list", "Count the items of {arg} greater than {c}.", LOOP % (">", "1"), lambda x, c, d: sum(i > c for i in x)
    ),
    Operation(
        "list", "Count the items of {arg} less than {c}.", LOOP % ("<", "1"), lambda x, c, d: sum(i < c for i in x)
    ),
    Operation("text", "Repeat {arg} {c} times.", "return {arg} * {c}", lambda x, c, d: x * c),
    Operation("text", "Return the first {c} letters of {arg}.", "return {arg}[:{c}]", lambda x, c, d: x[:c]),
    Operation("text", "Return the last {c} letters of {arg}.", "return {arg}[-{c}:]", lambda x, c, d: x[-c:]),
]


def draw(rng: random.Random) -> tuple[str, dict[str, str]]:
    """One function: its split key (operation and constants) and {"prompt", "completion", "test", "entry_point"}."""
    operation = rng.choice(OPERATIONS)
    c, d = rng.randint(SMALLEST, LARGEST_FIRST), rng.randint(SMALLEST, LARGEST_SECOND)
    argument = rng.choice(ARGUMENTS[operation.kind])
    entry_point = f"{rng.choice(VERBS)}_{rng.choice(NOUNS[operation.kind])}"
    docstring = operation.docstring.format(arg=argument, c=c, d=d)
    body = operation.body.format(arg=argument, c=c, d=d)
    item = {
        "prompt": f'def {entry_point}({argument}):\n    """{docstring}"""\n',
        "completion": "".join(f"    {line}\n" for line in body.split("\n")),
        "test": _test(operation, c, d),
        "entry_point": entry_point,
    }
    return docstring.replace(argument, operation.kind), item


def _test(operation: Operation, c: int, d: int) -> str:
    lines = (
        f"    assert candidate({value!r}) == {operation.reference(value, c, d)!r}"
        for value in _inputs(operation.kind, c)
    )
    return "\n".join(["def check(candidate):", *lines, ""])


def _inputs(kind: str, c: int) -> list[Any]:
    """Arguments on both sides of the constant, so that a wrong constant or a wrong comparison fails."""
    if kind == "number":
        return [0, c - 1, c, c + 1, 3 * c]
    if kind == "list":
        return [[], [c - 1, c, c + 1], [0, 1, 2 * c, c + 2, 3 * c]]
    return ["", "python", "abcdefghijklmnopqrstuvwxyz" * 3]

"""
The mathematics track: one-step word problems whose answer is worked out column by column.

Two-digit numbers, added or subtracted without a carry: what a tiny model learns as a rule, from few digit facts.
"""

import random

NAMES = ["Tom", "Ben", "Max", "Leo", "Sam", "Jack", "Lily", "Mia", "Anna", "Rosa", "Zoe", "Ella", "Nora", "Ruby"]
THINGS = ["apples", "books", "coins", "cards", "shells", "stamps", "nuts", "eggs", "cups", "boxes", "flowers", "stones"]

ADD = [
    "{name} has {a} {things}. {friend} gives {name} {b} more. How many {things} does {name} have now?",
    "There are {a} {things} in a box. {name} puts {b} more {things} in. How many {things} are in the box?",
    "{name} has {a} {things} and {friend} has {b} {things}. How many {things} do they have together?",
    "{name} finds {a} {things} in the morning and {b} in the evening. How many {things} does {name} find?",
]
SUBTRACT = [
    "{name} has {a} {things}. {name} gives {b} of them to {friend}. How many {things} does {name} have left?",
    "There are {a} {things} in a box. {name} takes {b} out. How many {things} are left in the box?",
    "{name} had {a} {things} and lost {b}. How many {things} does {name} still have?",
    "{name} has {a} {things} and {friend} has {b}. How many more {things} does {name} have than {friend}?",
]


def draw(rng: random.Random) -> tuple[str, dict[str, str]]:
    """One problem: its split key (the operation on its operands) and {"prompt", "completion", "answer"}."""
    name, friend = rng.sample(NAMES, 2)
    tens, ones = rng.randint(2, 9), rng.randint(0, 9)
    second = 10 * rng.randint(1, tens - 1) + rng.randint(0, ones)
    first = 10 * tens + ones - second
    plus = rng.random() < 0.5
    a, b = (first, second) if plus else (first + second, second)
    question = rng.choice(ADD if plus else SUBTRACT).format(
        name=name, friend=friend, things=rng.choice(THINGS), a=a, b=b
    )
    operation, answer = ("+", a + b) if plus else ("-", a - b)
    columns = ", ".join(
        f"{x}{operation}{y}={x + y if plus else x - y}" for x, y in ((a % 10, b % 10), (a // 10, b // 10))
    )
    completion = f"{a}{operation}{b}: {columns}. The answer is: {answer}"
    return _key(a, operation, b), {"prompt": f"{question}\n", "completion": completion, "answer": str(answer)}


def _key(a: int, operation: str, b: int) -> str:
    return f"{min(a, b)}+{max(a, b)}" if operation == "+" else f"{a}-{b}"

#!/usr/bin/env python3
"""Our math rule and PyPI math-verify on generated pairs whose verdict is known by construction.

    pip install math-verify; math_verify_peer.py MATH_BENCH [PAIRS_PER_KIND [ANSWER_PAIRS]]

False accepts and false rejects are counted apart, by kind of answer. Seeded: every run judges the same pairs. ANSWER_PAIRS, the
table of the unit test, holds what our rule promises; some of it is convention (bare lists have no order, a unit on one side is ignored).
"""
import collections
import fractions
import random
import subprocess
import sys
import time

from math_verify import parse, verify

draw = random.Random(20)


def whole(low=-99, high=99):
    return draw.randint(low, high)


def frac():
    return fractions.Fraction(whole(-40, 40), draw.randint(2, 30))


def latex(value):
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return draw.choice([rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}", rf"{sign}\dfrac{{{abs(value.numerator)}}}{{{value.denominator}}}",
                        f"{value.numerator}/{value.denominator}"])


def other(value):
    while (new := draw.choice([value + 1, value - 1, value + fractions.Fraction(1, 7), -value, value * 2])) == value:
        pass
    return new


def numbers():
    """A number and how else it may be written, or another number."""
    value, same = frac(), draw.random() < 0.5
    return latex(value), latex(value if same else other(value)), same


def decimals():
    value, same = fractions.Fraction(whole(-9999, 9999), draw.choice([10, 100, 1000])), draw.random() < 0.5
    new = value if same else value + fractions.Fraction(draw.choice([-1, 1]), draw.choice([10, 100, 1000]))
    return latex(value), f"{float(new):.4f}".rstrip("0").rstrip(".") if draw.random() < 0.5 else latex(new), same


def thousands():
    value, same = draw.randint(1000, 10 ** 9), draw.random() < 0.5
    new = value if same else value + draw.choice([-1, 1, 1000])
    return str(value), draw.choice([f"{new:,}", f"{new:,}".replace(",", "{,}"), rf"\${new:,}", f"{new}.0"]), same


def percentages():
    value, same = draw.randint(1, 999), draw.random() < 0.5
    new = value if same else value + draw.choice([-1, 1, 10])
    return rf"{value}\%", draw.choice([rf"{new}\%", f"{new}%", f"{new}"]), same


def polynomial(coefficients, variable="x"):
    text = ""
    for power, c in coefficients:
        if c == 0:
            continue
        body = "" if power == 0 else variable if power == 1 else f"{variable}^{{{power}}}"
        number = str(abs(c)) if power == 0 or abs(c) != 1 else ""
        text += ("-" if c < 0 else "+" if text else "") + number + body
    return text or "0"


def polynomials():
    a, b, c, d = (whole(1, 9) * draw.choice([-1, 1]) for _ in range(4))
    same = draw.random() < 0.5
    product = [(2, a * c), (1, a * d + b * c), (0, b * d)]
    if not same:
        i = draw.randrange(3)
        product[i] = (product[i][0], product[i][1] + draw.choice([-1, 1]))
    draw.shuffle(product)
    return f"({polynomial([(1, a), (0, b)])})({polynomial([(1, c), (0, d)])})", polynomial(product), same


def roots():
    a, b, same = draw.randint(2, 9), draw.choice([2, 3, 5, 6, 7, 10, 11]), draw.random() < 0.5
    new = a if same else a + 1
    return rf"\sqrt{{{a * a * b}}}", draw.choice([rf"{new}\sqrt{{{b}}}", rf"\sqrt{{{b}}} \cdot {new}", rf"\frac{{{new * b}}}{{\sqrt{{{b}}}}}"]), same


def tuples():
    values, same = [frac() for _ in range(draw.randint(2, 4))], draw.random() < 0.5
    new = list(values)
    if not same:
        if draw.random() < 0.5 and values != values[::-1]:
            new.reverse()
        else:
            new[0] = other(new[0])
    return "(" + ",".join(map(latex, values)) + ")", r"\left(" + ", ".join(map(latex, new)) + r"\right)", same


def sets():
    values, same = draw.sample(range(-50, 50), draw.randint(2, 5)), draw.random() < 0.5
    new = list(values)
    draw.shuffle(new)
    if not same:
        new[0] += 200
    return r"\{" + ",".join(map(str, values)) + r"\}", draw.choice([r"\{{{}\}}", "{}"]).format(", ".join(map(str, new))), same


def intervals():
    low, same = whole(), draw.random() < 0.5
    high = low + draw.randint(1, 50)
    brackets = draw.choice(["()", "[]", "(]", "[)"])
    new = brackets if same else draw.choice([b for b in ["()", "[]", "(]", "[)"] if b != brackets])
    return f"{brackets[0]}{low},{high}{brackets[1]}", rf"\left{new[0]}{low}, {high}\right{new[1]}", same


def matrices():
    values, same = [whole() for _ in range(4)], draw.random() < 0.5
    new = list(values)
    if not same:
        new[draw.randrange(4)] += 1
    write = lambda kind, v: rf"\begin{{{kind}}} {v[0]} & {v[1]} \\ {v[2]} & {v[3]} \end{{{kind}}}"  # noqa: E731
    return write("pmatrix", values), write(draw.choice(["pmatrix", "bmatrix"]), new), same


def units():
    value, same = draw.randint(1, 500), draw.random() < 0.5
    new = value if same else value + draw.choice([-1, 1, 10])
    unit = draw.choice(["cm", "m", "km", "kg", "hours", "meters"])
    return draw.choice([str(value), rf"{value}\text{{ {unit}}}"]), rf"{new} \text{{ {unit}}}", same


def equations():
    value, same = frac(), draw.random() < 0.5
    name = draw.choice("xyzn")
    return draw.choice([latex(value), f"{name}={latex(value)}"]), f"{name} = {latex(value if same else other(value))}", same


def with_pi():
    value, same = frac(), draw.random() < 0.5
    new = value if same else other(value)
    write = lambda v: draw.choice([rf"\frac{{{v.numerator}\pi}}{{{v.denominator}}}", rf"\frac{{{v.numerator}}}{{{v.denominator}}}\pi"])  # noqa: E731
    return write(value), write(new), same


KINDS = [numbers, decimals, thousands, percentages, units, equations, with_pi, roots, polynomials, tuples, sets, intervals, matrices]


def main():
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 150
    pairs = [(kind.__name__, *kind()) for kind in KINDS for _ in range(count)]
    if len(sys.argv) > 3:
        with open(sys.argv[3]) as file:
            table = [line.rstrip("\n") for line in file if line[0] != "#" and (" <=> " in line or " <!> " in line)]
        pairs += [("table", *line.replace(" <!> ", " <=> ").split(" <=> ", 1), " <=> " in line) for line in table]
    begin = time.perf_counter()
    lines = "".join(f"{right}\t{answer}\n" for _, right, answer, _ in pairs)
    ours = [line == "1" for line in subprocess.run([sys.argv[1], "judge"], input=lines, capture_output=True, text=True, check=True).stdout.split()]
    our_time = time.perf_counter() - begin
    begin = time.perf_counter()
    theirs = [bool(verify(parse(f"${right}$"), parse(rf"\boxed{{{answer}}}"))) for _, right, answer, _ in pairs]
    their_time = time.perf_counter() - begin
    wrong = collections.Counter()
    for (kind, right, answer, same), a, b in zip(pairs, ours, theirs, strict=True):
        for name, verdict in (("ours", a), ("math-verify", b)):
            if verdict != same:
                wrong[name, kind, "accept" if verdict else "reject"] += 1
                if name == "ours":
                    print(f"  ours, false {'accept' if verdict else 'reject'}: {right}  |  {answer}")
    print(f"{len(pairs)} pairs, {sum(same for *_, same in pairs)} of them the same")
    print(f"{'kind':13} {'ours: accepts':>14} {'rejects':>8}   {'math-verify: accepts':>21} {'rejects':>8}   (false ones of {count})")
    for kind in [*(k.__name__ for k in KINDS), *(["table"] if len(sys.argv) > 3 else []), None]:
        figures = [sum(n for (name, k, what), n in wrong.items() if name == who and what == how and kind in (k, None))
                   for who in ("ours", "math-verify") for how in ("accept", "reject")]
        print(f"{kind or 'all':13} {figures[0]:14} {figures[1]:8}   {figures[2]:21} {figures[3]:8}")
    print(f"answers a second, one process: ours {len(pairs) / our_time:.0f} (start of the program included), math-verify {len(pairs) / their_time:.0f}")


main()

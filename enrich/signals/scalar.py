"""From expressions to Python source that is as near to hand-written as the exact rules allow.

An expression becomes a `Val`: code that is right wherever its guards hold, and guards that hold exactly where the
value is not null. Guards are themselves Python conditions (`c0`, `t3 is not None`), so a null costs one test for
everything that depends on it, and what can't be null costs none. Equal subexpressions are computed once, in
temporaries, under their guards.

What can raise in DuckDB (an overflow) is never put into a temporary: it stays inline, where Python's `if ... else` is
as lazy as CASE, and raises `SqlError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from enrich.signals.facts import Facts, Known
from enrich.signals.forms import folded_cast, is_null, logic_leaves, plain_text_test
from enrich.signals.ir import Node
from enrich.signals.pieces import (
    Statement,
    Val,
    all_true,
    any_true,
    as_float,
    literal,
    negated,
    or_none,
    union,
    worth,
)

__all__ = ["Scalars"]

_EXACT: Final = 2**53


class Scalars:
    """Emits expressions; `statements` collects the temporaries in order.

    Args:
        roots: every expression that will be asked for, so that what is used twice is known beforehand.
        known: facts of all nodes.
        leaf: code of leaves (columns, counts, sums, probes, inputs).
    """

    def __init__(self, roots: Iterable[Node], known: Known, leaf: Callable[[Node], Val]) -> None:
        self.statements: list[Statement] = []
        self._known = known
        self._leaf = leaf
        self._memo: dict[Node, Val] = {}
        self._true: dict[Node, str] = {}
        self._names = 0
        self._uses: dict[Node, int] = {}
        seen: set[Node] = set()
        for root in roots:
            self._uses[root] = self._uses.get(root, 0) + 1
            for node in root.walk():
                if node not in seen:
                    seen.add(node)
                    for arg in node.args:
                        self._uses[arg] = self._uses.get(arg, 0) + 1

    # -- values

    def value(self, node: Node) -> Val:
        found = self._memo.get(node)
        if found is None:
            found = self._emit(node)
            if self._uses.get(node, 0) > 1 and not self._known(node).fails and worth(found.code):
                # a text test needs no null test, so its temporary may not depend on one either
                needed = () if node.op in ("eq", "in") and plain_text_test(node) else found.guards
                found = Val(self.define(found.code, needed), found.guards, found.as_int)
            self._memo[node] = found
        return found

    def define(self, code: str, guards: tuple[str, ...]) -> str:
        """A temporary that holds `code` wherever `guards` hold."""
        name = f"t{len(self.statements)}"
        self.statements.append(Statement(guards, f"{name} = {code}", name))
        return name

    def optional(self, node: Node) -> str:
        """Code that gives the value, or None for null."""
        return or_none(self._float(node))

    def _part(self, node: Node) -> tuple[str, tuple[str, ...]]:
        """(code that gives the value or None, guards under which it may be computed at all).

        What is never null has guards only where a branch's condition was written into it (`assume`); outside of that
        branch nobody asks for it.
        """
        value = self._float(node)
        if value.guards and not self._facts(node).nullable:
            return value.code, value.guards
        return or_none(value), ()

    def _float(self, node: Node) -> Val:
        """A value in its final Python type: a DOUBLE is a float."""
        found = self.value(node)
        return Val(as_float(found), found.guards) if found.as_int else found

    def final(self, node: Node) -> Val:
        return self._float(node)

    def _facts(self, node: Node) -> Facts:
        return self._known(node)

    def _args(self, node: Node, *, floats: bool = False) -> list[Val]:
        """The operands' values. Those that can raise are computed first, all of them: DuckDB evaluates every operand
        before it looks for nulls, so that an overflow beside a null is an overflow."""
        values = [(self._float if floats else self.value)(a) for a in node.args]
        risky = [i for i, a in enumerate(node.args) if self._facts(a).fails]
        if not risky or len(values) == 1:
            return values
        bound = []
        for i in risky:
            name = self._name()
            bound.append(f"({name} := {or_none(values[i])})")
            values[i] = Val(name, (f"{name} is not None",) if values[i].guards else (), values[i].as_int)
        first = f"({', '.join(bound)},)"  # a tuple is always truthy
        return [Val(v.code, (first, *v.guards), v.as_int) for v in values]

    def _name(self) -> str:
        self._names += 1
        return f"x{self._names}"

    def _strict(self, node: Node, code: Callable[..., str]) -> Val:
        values = self._args(node, floats=True)
        return Val(code(*(v.code for v in values)), union(v.guards for v in values))

    def _emit(self, node: Node) -> Val:
        op = node.op
        if op == "const":
            return literal(node)
        if not node.args:
            return self._leaf(node)
        rule = getattr(self, f"_op_{_METHODS.get(op, op)}", None)
        if rule is None:
            raise ValueError(f"no code for {op}")  # INVARIANT: the reader lets only known operations through
        found: Val = rule(node)
        return found

    def _op_arithmetic(self, node: Node) -> Val:
        if node.type.is_double:
            left, right = self._args(node)
            if left.as_int and right.as_int:
                left = Val(f"float({left.code})", left.guards)
            return Val(f"({left.code} {node.op} {right.code})", union((left.guards, right.guards)))
        return self._checked(node, self._strict(node, lambda a, b: f"({a} {node.op} {b})"))

    def _checked(self, node: Node, value: Val) -> Val:
        """An integer result, tested against its type only if its operands allow it to pass it."""
        if not (self._facts(node).fails and node.type.is_exact):
            return value
        low, high = node.type.range
        return Val(f"_within({value.code}, {low}, {high})", value.guards)

    def _op_neg(self, node: Node) -> Val:
        return self._checked(node, self._strict(node, lambda a: f"(-{a})"))

    def _op_abs(self, node: Node) -> Val:
        return self._checked(node, self._strict(node, lambda a: f"abs({a})"))

    def _op_divide(self, node: Node) -> Val:
        left, right = self._args(node)
        guards = union((left.guards, right.guards))
        if not self._facts(node.args[1]).may_be_zero:
            return Val(f"({left.code} / {right.code})", guards)
        return Val(f"_div({left.code}, {as_float(right)})", guards)

    def _op_int_divide(self, node: Node) -> Val:
        left, right = (self._facts(a) for a in node.args)
        if left.low >= 0 and right.low >= 0 and not right.may_be_zero:
            return self._strict(node, lambda a, b: f"({a} {node.op} {b})")
        if node.op == "%":
            return self._strict(node, lambda a, b: f"_rem({a}, {b}, {node.type.range[0]})")
        return self._checked(node, self._strict(node, lambda a, b: f"_idiv({a}, {b})"))

    def _op_function(self, node: Node) -> Val:
        name = f"_{node.op}"
        if node.op in ("sqrt", "ln"):
            facts = self._facts(node.args[0])
            if not facts.nan and facts.low >= 0 and (node.op == "sqrt" or not facts.may_be_zero):
                name += "_plain"
        return self._strict(node, lambda *args: f"{name}({', '.join(args)})")

    def _op_isfinite(self, node: Node) -> Val:
        facts = self._facts(node.args[0])
        if facts.finite and not facts.fails:  # what can raise is computed, whatever is asked of it
            return self._strict(node, lambda a: "True")
        return self._strict(node, lambda a: f"_isfinite({a})")

    def _atom(self, node: Node, value: Val) -> Val:
        """A value whose code may be written twice; left as it is where it can raise."""
        if not worth(value.code) or self._facts(node).fails:
            return value
        return Val(self.define(value.code, value.guards), value.guards, value.as_int)

    def _op_settled(self, node: Node) -> Val:
        """A DOUBLE as a context shows it: no value unless finite, and no -0.0."""
        facts = self._facts(node.args[0])
        value = self._float(node.args[0])
        if facts.finite:
            return Val(f"({value.code} + 0.0)", value.guards) if facts.minus_zero else value
        value = self._atom(node.args[0], value)
        return Val(f"({value.code} + 0.0)", (*value.guards, f"{value.code} - {value.code} == 0.0"))

    def _op_round(self, node: Node) -> Val:
        digits = node.args[1].value if len(node.args) > 1 else 0
        value = self._float(node.args[0])
        if node.type.is_double:
            return Val(f"_round({value.code}, {10.0 ** int(digits)!r})", value.guards)  # type: ignore[call-overload]
        shift = node.args[0].type.scale - node.type.scale
        return Val(f"_half_away({value.code}, {10**shift})", value.guards) if shift > 0 else value

    def _op_epoch(self, node: Node) -> Val:
        later, earlier = (self.value(a) for a in node.args[0].args)
        return Val(f"_seconds({later.code} - {earlier.code})", union((later.guards, earlier.guards)))

    def _op_assume(self, node: Node) -> Val:
        """The operand where a condition holds; the condition is a guard, so that nothing is computed elsewhere."""
        value = self.value(node.args[0])
        if node.value == "finite":
            return Val(value.code, union((value.guards, (f"_isfinite({value.code})",))))
        truthy = node.value == "nonzero" or self._facts(node.args[0]).low >= 0
        guard = value.code if truthy else f"({value.code} > 0)"
        return Val(value.code, union((value.guards, (guard,))), value.as_int)

    # -- casts

    def _op_cast(self, node: Node) -> Val:
        source, target = node.args[0].type, node.type
        folded = folded_cast(node)
        if folded is not None:
            return folded
        value = self.value(node.args[0])
        facts = self._facts(node.args[0])
        attempt = node.op == "try_cast"
        if source.is_exact and target.is_double:
            return self._to_double(node, value, facts)
        if source.is_exact and target.is_exact:
            shift = target.scale - source.scale
            code = value.code
            if shift:
                code = f"({code} * {10**shift})" if shift > 0 else f"_half_away({code}, {10**-shift})"
            if attempt:
                return self._nullable(node, f"_try_within({code}, {target.range[0]}, {target.range[1]})", value.guards)
            return self._checked(node, Val(code, value.guards))
        value = self._float(node.args[0])
        if source.is_double and target.is_int:
            low, high = target.range
            name = "_try_int" if attempt else "_int"
            code = f"{name}({value.code}, {low}, {high})"
        elif source.is_double and target.is_decimal:
            name = "_try_dec" if attempt else "_dec"
            code = f"{name}({value.code}, {target.scale}, {target.range[1]})"
        else:
            name = "_text_int" if target.is_int else "_text_double"
            code = f"{name}({value.code})"
        return self._nullable(node, code, value.guards) if attempt else Val(code, value.guards)

    def _to_double(self, node: Node, value: Val, facts: Facts) -> Val:
        source = node.args[0].type
        if source.scale:
            return Val(f"({value.code} / {10**source.scale})", value.guards)
        if facts.exact_int:
            return Val(value.code, value.guards, as_int=True)
        wide = source.id == "HUGEINT" or (source.is_decimal and source.width > 18)
        convert = "_huge" if wide else "float"
        value = self._atom(node.args[0], value)
        if worth(value.code):
            return Val(f"{convert}({value.code})", value.guards)
        test = f"{value.code} <= {_EXACT}" if facts.low >= 0 else f"-{_EXACT} <= {value.code} <= {_EXACT}"
        # an int that a double holds exactly needs no conversion to be divided
        return Val(f"({value.code} if {test} else {convert}({value.code}))", value.guards, as_int=True)

    # -- logic

    def true(self, node: Node) -> str:
        """Code that is truthy exactly where the boolean `node` is TRUE."""
        found = self._true.get(node)
        if found is None:
            found = self._true[node] = self._emit_true(node)
        return found

    def _emit_true(self, node: Node) -> str:
        if node.op == "const":
            return "True" if node.value else "False"
        if node.op == "and":
            return all_true([self.true(a) for a in node.args])
        if node.op == "or":
            return any_true([self.true(a) for a in node.args])
        if node.op == "not":
            return self.false(node.args[0])
        if node.op == "is_null" and self._facts(node).fails:
            return f"({self.optional(node.args[0])} is None)"
        if node.op == "is_null":
            guards = self.value(node.args[0]).guards
            return f"(not {all_true(list(guards))})" if guards else "False"
        if self._nonzero_test(node):
            operand = self.value(node.args[0])
            return all_true([*operand.guards, operand.code])
        value = self.value(node)
        if node.op in ("eq", "in") and plain_text_test(node):
            return value.code  # None equals no text
        return all_true([*value.guards, value.code])

    def _nonzero_test(self, node: Node) -> bool:
        """Whether the comparison is TRUE exactly where its first operand is truthy."""
        if node.op not in ("gt", "ne") or node.args[1].op != "const" or node.args[1].value != 0:
            return False
        facts = self._facts(node.args[0])
        return not node.args[0].type.is_bool and (node.op == "ne" or (facts.low >= 0 and not facts.nan))

    def false(self, node: Node) -> str:
        """Code that is truthy exactly where the boolean `node` is FALSE."""
        if node.op == "const":
            return "True" if node.value is False else "False"
        if node.op == "and":
            return any_true([self.false(a) for a in node.args])
        if node.op == "or":
            return all_true([self.false(a) for a in node.args])
        if node.op == "not":
            return self.true(node.args[0])
        if node.op == "is_null" and self._facts(node).fails:
            return f"({self.optional(node.args[0])} is not None)"
        if node.op == "is_null":
            return all_true(list(self.value(node.args[0]).guards)) or "True"
        value = self.value(node)
        return all_true([*value.guards, f"not {value.code}"])

    def _op_logic(self, node: Node) -> Val:
        if self._facts(node).fails:  # outside of CASE all of them are evaluated
            code = f"_{node.op}({', '.join(self.optional(a) for a in node.args)})"
            return self._nullable(node, code) if self._facts(node).nullable else Val(code)
        if self._facts(node).nullable:
            # it is asked when it is TRUE, and if it is not, when it is FALSE: what both look at is computed once
            for leaf in logic_leaves(node):
                self._uses[leaf] = self._uses.get(leaf, 0) + 1
        values = [self.value(a) for a in node.args]
        if not any(v.guards for v in values):
            return Val(f"({f' {node.op} '.join(v.code for v in values)})")
        code = f"(True if {self.true(node)} else False if {self.false(node)} else None)"
        return self._nullable(node, code)

    def _op_not(self, node: Node) -> Val:
        value = self.value(node.args[0])
        return Val(f"(not {value.code})", value.guards)

    def _op_is_null(self, node: Node) -> Val:
        return Val(self.true(node))

    def _op_compare(self, node: Node) -> Val:
        left, right = self._args(node)
        guards = union((left.guards, right.guards))
        symbol = _SYMBOLS[node.op]
        nan = node.args[0].type.is_double and any(self._facts(a).nan for a in node.args)
        a, b = left.code, right.code
        if nan:
            a, b = as_float(left), as_float(right)
            code = {
                "eq": f"_same({a}, {b})", "ne": f"(not _same({a}, {b}))", "lt": f"_less({a}, {b})",
                "le": f"_less_same({a}, {b})", "gt": f"_less({b}, {a})", "ge": f"_less_same({b}, {a})",
            }[node.op]  # fmt: skip
            return Val(code, guards)
        if node.op == "eq" and node.args[1].op == "const" and node.args[1].value == 0 and not node.args[0].type.is_bool:
            return Val(f"(not {a})", guards)
        return Val(f"({a} {symbol} {b})", guards)

    def _op_in(self, node: Node) -> Val:
        first, rest = node.args[0], node.args[1:]
        left = self.value(first)
        if all(a.op == "const" for a in rest) and not self._facts(first).nan:
            values = [a for a in rest if a.value is not None]
            listed = ", ".join(literal(a).code for a in values)
            inside = f"({left.code} in ({listed}{',' if len(values) == 1 else ''}))" if values else "False"
            if len(values) == len(rest):
                return Val(inside, left.guards)
            return self._nullable(node, f"(True if {inside} else None)", left.guards)
        alternatives = tuple(Node("eq", node.type, (first, a)) for a in rest)
        return self.value(Node("or", node.type, alternatives) if len(alternatives) > 1 else alternatives[0])

    def _op_distinct(self, node: Node) -> Val:
        left, right = node.args
        if self._facts(node).fails:
            code = f"_distinct({self.optional(left)}, {self.optional(right)})"
            return Val(code if node.op == "distinct_from" else f"(not {code})")
        pair = Node("eq", node.type, node.args)
        both = all_true([f"not {all_true(list(self.value(a).guards)) or 'True'}" for a in (left, right)])
        code = any_true([self.true(pair), both])
        return Val(f"(not {code})" if node.op == "distinct_from" else f"bool({code})")

    # -- choices

    def _nullable(self, node: Node, code: str, guards: tuple[str, ...] = ()) -> Val:
        """Code that may give None where its guards hold, bound to a name so that it can be tested."""
        if self._facts(node).fails:
            name = self._name()
            return Val(name, (*guards, f"({name} := {code}) is not None"))
        name = self.define(code, guards)
        return Val(name, (*guards, f"{name} is not None"))

    def _condition(self, node: Node) -> str:
        """`true`, as a name where it is long."""
        test = self.true(node)
        if len(test) > 16 and not self._facts(node).fails:
            test = self._true[node] = self.define(test, ())
        return test

    def _op_case(self, node: Node) -> Val:
        branches: list[tuple[str, Node]] = []
        conditions = list(zip(node.args[:-1:2], node.args[1:-1:2], strict=True))
        last = node.args[-1]
        if len(conditions) == 1 and last.op == "assume" and last.value == "nonzero" and is_null(node.args[1]):
            zero = conditions[0][0]
            if zero.op == "eq" and zero.args[0] == last.args[0]:  # nullif(x, 0): the assumption says it all
                return self.value(last)
        for condition, then in conditions:
            test = self._condition(condition)
            if test == "True":
                last = then
                break
            if test != "False":
                branches.append((test, then))
        if not branches:
            return self._float(last)
        if len(branches) == 1:
            test, then = branches[0]
            if is_null(last):
                value = self._float(then)
                return Val(value.code, union(((test,), value.guards)))
            if is_null(then):
                value = self._float(last)
                return Val(value.code, union(((negated(test),), value.guards)))
        code = self.optional(last)
        for test, then in reversed(branches):
            code = f"({self.optional(then)} if {test} else {code})"
        return Val(code) if not self._facts(node).nullable else self._nullable(node, code)

    def _op_coalesce(self, node: Node) -> Val:
        args = list(node.args)
        firm = next((i for i, a in enumerate(args) if not self._facts(a).nullable), len(args) - 1)
        code, guards = self._part(args[firm])
        for arg in reversed(args[:firm]):
            value = self._float(arg)
            code = f"({value.code} if {all_true(list(value.guards))} else {code})"
        return Val(code, guards) if not self._facts(node).nullable else self._nullable(node, code, guards)

    def _op_extreme(self, node: Node) -> Val:
        if len(node.args) == 2 and not any(self._facts(a).nan or self._facts(a).nullable for a in node.args):
            a, b = (self._atom(n, self._float(n)) for n in node.args)
            if not (worth(a.code) or worth(b.code)):
                symbol = ">" if node.op == "greatest" else "<"
                return Val(f"({b.code} if {b.code} {symbol} {a.code} else {a.code})", union((a.guards, b.guards)))
        if len(node.args) == 2 and node.args[0].op == "const" and not any(self._facts(a).nullable for a in node.args):
            bound = self._float(node.args[0]).code
            code, guards = self._part(node.args[1])
            name = self._name()
            if node.op == "greatest":  # nan is the largest; of equals the first
                return Val(f"({bound} if ({name} := {code}) <= {bound} else {name})", guards)
            return Val(f"({name} if ({name} := {code}) < {bound} else {bound})", guards)
        parts = [self._part(a) for a in node.args]
        guards = union(g for _, g in parts)
        code = f"_{node.op}({', '.join(c for c, _ in parts)})"
        return Val(code, guards) if not self._facts(node).nullable else self._nullable(node, code, guards)

    def _op_try(self, node: Node) -> Val:
        inner = node.args[0]
        if not self._facts(inner).fails:
            return self.value(inner)
        return self._nullable(node, f"_try(lambda: {self.optional(inner)})")


_METHODS: Final[dict[str, str]] = {
    "+": "arithmetic", "-": "arithmetic", "*": "arithmetic", "/": "divide", "//": "int_divide", "%": "int_divide",
    "ln": "function", "exp": "function", "sqrt": "function", "pow": "function", "try_cast": "cast",
    "variance": "function",
    "average": "function",
    "and": "logic", "or": "logic", "greatest": "extreme", "least": "extreme",
    "eq": "compare", "ne": "compare", "lt": "compare", "le": "compare", "gt": "compare", "ge": "compare",
    "distinct_from": "distinct", "not_distinct_from": "distinct",
}  # fmt: skip
_SYMBOLS: Final[dict[str, str]] = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

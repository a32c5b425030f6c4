"""Regular expressions to syntax trees.

A parser of what ECMA 262 and Python's ``re`` have in common, plus Python's named
groups and flags. It knows what a pattern is made of, not what it matches: whoever
generates from the tree asks ``re`` in the end.
"""

from __future__ import annotations

from ors_gym.spaces.schema.regex_tree import (
    Alternation,
    Assertion,
    Backreference,
    Characters,
    Concatenation,
    Group,
    Repeat,
    Span,
    Tree,
)

__all__ = ["UnsupportedPatternError", "parse"]

_LAST_CHARACTER = 0xFFFF
_SURROGATES = (0xD800, 0xDFFF)
_PRINTABLE = (0x20, 0x7E)
_LINE_ENDS = ((0x0A, 0x0A), (0x0D, 0x0D))
_MAX_DEPTH = 50

# ECMA 262: \d and \w are ASCII, so these are whole; \s is not.
_CLASSES: dict[str, tuple[Span, ...]] = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": ((0x20, 0x20), (0x09, 0x0D)),
}
_ASSERTIONS = {"A": "^", "B": "", "Z": "$", "b": "", "z": "$"}
_ESCAPES = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "a": 7, "0": 0}


class UnsupportedPatternError(ValueError):
    """Raised when a pattern has a construct that this parser does not know."""


def parse(pattern: str) -> Tree:
    r"""Parse a regular expression.

    Args:
        pattern: As in a JSON Schema's ``pattern``.

    Returns:
        The syntax tree.

    Raises:
        UnsupportedPatternError: If the pattern is not understood.

    Example:
        >>> parse("a?").maximum
        1
    """
    parser = _Parser(pattern)
    tree = parser.alternation()
    if parser.position < len(pattern):
        raise parser.unsupported("an unbalanced parenthesis")
    return tree


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.position = 0
        self.groups = 0
        self.depth = 0

    def unsupported(self, what: str) -> UnsupportedPatternError:
        return UnsupportedPatternError(f"{what} at character {self.position}")

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.position)

    def accept(self, text: str) -> bool:
        if not self.peek(text):
            return False
        self.position += len(text)
        return True

    def take(self) -> str:
        if self.position >= len(self.pattern):
            raise self.unsupported("an unexpected end")
        self.position += 1
        return self.pattern[self.position - 1]

    def until(self, end: str) -> str:
        stop = self.pattern.find(end, self.position)
        if stop < 0:
            raise self.unsupported(f"a missing {end!r}")
        text = self.pattern[self.position : stop]
        self.position = stop + len(end)
        return text

    def alternation(self) -> Tree:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.unsupported(f"more than {_MAX_DEPTH} nested groups")
        options = [self.concatenation()]
        while self.accept("|"):
            options.append(self.concatenation())
        self.depth -= 1
        return options[0] if len(options) == 1 else Alternation(tuple(options))

    def concatenation(self) -> Tree:
        items: list[Tree] = []
        while self.position < len(self.pattern) and not (
            self.peek("|") or self.peek(")")
        ):
            items.append(self.repetition(self.atom()))
        return items[0] if len(items) == 1 else Concatenation(tuple(items))

    def repetition(self, item: Tree) -> Tree:
        while True:
            bounds = self.quantifier()
            if bounds is None:
                return item
            # Lazy and possessive repeats match other parts of a text, not other texts.
            if not self.accept("?"):
                self.accept("+")
            item = Repeat(item, *bounds)

    def quantifier(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.accept(sign):
                return bounds
        if not self.peek("{"):
            return None
        start = self.position
        self.position += 1
        low, comma, high = self.number(), self.accept(","), self.number()
        if not self.accept("}") or (not comma and not low):
            # Not a quantifier after all: the brace stands for itself.
            self.position = start
            return None
        if not comma:
            return int(low), int(low)
        return int(low or 0), int(high) if high else None

    def number(self) -> str:
        start = self.position
        while self.pattern[self.position : self.position + 1] in tuple("0123456789"):
            self.position += 1
        if self.position - start > 9:
            raise self.unsupported("too large a number")
        return self.pattern[start : self.position]

    def atom(self) -> Tree:
        character = self.take()
        if character in "^$":
            return Assertion(character)
        if character == ".":
            return _prefer_printable(_complement(_LINE_ENDS), whole=False)
        if character == "[":
            return self.character_class()
        if character == "(":
            return self.group()
        if character == "\\":
            return self.escape()
        return _one(ord(character))

    def group(self) -> Tree:
        if not self.accept("?"):
            return self.captured(None)
        if self.accept("=") or self.accept("<="):
            # What must stand ahead or behind may be ours to write, or be there anyway.
            return Alternation((Assertion(""), self.closed()))
        if self.accept("!") or self.accept("<!"):
            self.closed()
            return Assertion("")
        if self.accept("P=") or self.peek("#"):
            name = self.until(")")
            # What begins with # is a comment.
            return Concatenation(()) if name[:1] == "#" else Backreference(name)
        if self.accept("P<") or self.accept("<"):
            return self.captured(self.until(">"))
        return self.flags()

    def flags(self) -> Tree:
        """A group that is not captured, with or without flags of its own."""
        if self.accept(":") or self.accept(">"):
            return self.closed()
        start = self.position
        while self.take() in "aiLmsu-":
            pass
        self.position -= 1
        if self.position > start and self.accept(")"):
            return Concatenation(())
        if self.position > start and self.accept(":"):
            return self.closed()
        raise self.unsupported("an unknown kind of group")

    def captured(self, name: str | None) -> Tree:
        self.groups += 1
        number = self.groups
        return Group(number, name, self.closed())

    def closed(self) -> Tree:
        item = self.alternation()
        if not self.accept(")"):
            raise self.unsupported("a missing ')'")
        return item

    def escape(self) -> Tree:
        letter = self.take()
        if letter in _ASSERTIONS:
            return Assertion(_ASSERTIONS[letter])
        if letter in "123456789":
            return Backreference(int(letter + self.number()))
        if letter == "k" and self.accept("<"):
            return Backreference(self.until(">"))
        if letter.lower() in _CLASSES:
            spans = _CLASSES[letter.lower()]
            if letter.isupper():
                return _prefer_printable(_complement(spans), whole=False)
            return _prefer_printable(spans, whole=letter != "s")
        return _one(self.code_point(letter))

    def code_point(self, letter: str) -> int:
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        if letter in "xuU":
            if self.accept("{"):
                digits = self.until("}")
            else:
                digits = "".join(
                    self.take() for _ in range({"x": 2, "u": 4}.get(letter, 8))
                )
            try:
                return int(digits, 16)
            except ValueError:
                raise self.unsupported("an unreadable code point") from None
        if letter == "c":
            return ord(self.take()) % 32
        if letter.isalnum() and letter.isascii():
            raise self.unsupported(f"the escape \\{letter}")
        return ord(letter)

    def character_class(self) -> Tree:
        negated = self.accept("^")
        spans: list[Span] = []
        whole = not negated
        first = True
        while first or not self.peek("]"):
            first = False
            low, is_whole = self.class_member()
            whole = whole and is_whole
            if len(low) == 1 and self.peek("-") and not self.peek("-]"):
                self.position += 1
                high, _ = self.class_member()
                if len(high) != 1:
                    raise self.unsupported("a range that ends in a class")
                spans.append((low[0][0], high[0][1]))
            else:
                spans.extend(low)
        self.position += 1
        result = _complement(tuple(spans)) if negated else tuple(spans)
        if not result:
            raise self.unsupported("a class without characters")
        return _prefer_printable(result, whole=whole)

    def class_member(self) -> tuple[tuple[Span, ...], bool]:
        character = self.take()
        if character != "\\":
            return ((ord(character), ord(character)),), True
        letter = self.take()
        if letter.lower() in _CLASSES:
            spans = _CLASSES[letter.lower()]
            if letter.isupper():
                return _complement(spans), False
            return spans, letter != "s"
        code = 8 if letter == "b" else self.code_point(letter)
        return ((code, code),), True


def _one(code: int) -> Characters:
    return Characters(((code, code),))


def _complement(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    result: list[Span] = []
    start = 0
    for low, high in sorted((*spans, _SURROGATES)):
        if low > start:
            result.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST_CHARACTER:
        result.append((start, _LAST_CHARACTER))
    return tuple(result)


def _prefer_printable(spans: tuple[Span, ...], *, whole: bool) -> Characters:
    """Draw from printable ASCII where a set that cannot be listed has any."""
    if whole:
        return Characters(spans)
    low, high = _PRINTABLE
    printable = tuple(
        (max(first, low), min(last, high))
        for first, last in spans
        if first <= high and last >= low
    )
    return Characters(printable or spans, whole=False)

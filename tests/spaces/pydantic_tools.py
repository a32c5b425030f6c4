"""Pydantic models of every kind that tools take, as an ORS environment."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import pathlib
import re
import uuid
from collections import deque
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    Optional,
    TypeVar,
    Union,
)

import pydantic
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from typing_extensions import TypedDict


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class ToolInput(BaseModel):
    """The input of one tool; other models here are parts of such."""


class PlainString(ToolInput):
    text: str


class BoundedString(ToolInput):
    short: str = Field(max_length=3)
    exact: str = Field(min_length=4, max_length=4)
    long: str = Field(min_length=200)
    stripped: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class PatternString(ToolInput):
    code: str = Field(pattern=r"^[A-Z]{2,3}-\d{4}$")
    anywhere: str = Field(pattern=r"a+b")
    either: str = Field(pattern=r"^(cat|dog|[xyz]{3})s?$")
    with_length: str = Field(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=12)
    at_least: str = Field(pattern=r"^\w+$", min_length=30)
    address: str = Field(
        pattern=r"^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}"
        r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)$"
    )
    escaped: str = Field(pattern=r"^\$\d+\.\d{2}\t[^\s,;]+$")


class LookaroundPattern(ToolInput):
    model_config = ConfigDict(regex_engine="python-re")

    password: str = Field(pattern=r"^(?=.*[A-Z])(?=.*\d)[A-Za-z\d]{8,}$")
    not_admin: str = Field(pattern=r"^(?!admin$)[a-z]{3,8}$")
    twice: str = Field(pattern=r"^(?P<half>[ab]{2})-(?P=half)$")
    bounded: str = Field(pattern=r"\bword\b")


class Integers(ToolInput):
    free: int
    low: int = Field(ge=10)
    high: int = Field(lt=-5)
    between: int = Field(gt=0, le=3)
    large: int = Field(ge=10**15, le=10**18)
    even: int = Field(multiple_of=2, ge=1, le=9)
    strict: pydantic.StrictInt


class Numbers(ToolInput):
    free: float
    unit: float = Field(ge=0, le=1)
    open: float = Field(gt=0, lt=0.001)
    huge: float = Field(ge=1e300)
    quarter: float = Field(multiple_of=0.25, ge=-1, le=1)
    tenth: float = Field(multiple_of=0.1)
    finite: pydantic.FiniteFloat


class Booleans(ToolInput):
    plain: bool
    strict: pydantic.StrictBool
    nothing: None


class Literals(ToolInput):
    one: Literal["only"]
    several: Literal["a", "b", 3, True, None]  # noqa: PYI061
    number: Literal[1, 2, 3] = 1


class Enums(ToolInput):
    color: Color
    level: Level
    optional: Color | None = None
    listed: list[Color] = []


class Optionals(ToolInput):
    old: Optional[int] = None  # noqa: UP045
    new: str | None
    deep: list[int | None] | None = None


class Unions(ToolInput):
    simple: int | str
    old: Union[bool, list[int]]  # noqa: UP007
    mixed: float | str | None = None
    constrained: Annotated[int, Field(ge=0, le=5)] | Annotated[str, Field(max_length=2)]


class Inner(BaseModel):
    x: int = Field(ge=0)
    label: str = "none"


class Middle(BaseModel):
    inner: Inner
    others: list[Inner] = []


class Nested(ToolInput):
    middle: Middle
    again: Inner | None = None
    by_name: dict[str, Inner] = {}


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog", "hound"]
    good: bool = True


class Lizard(BaseModel):
    kind: Literal["lizard"] = "lizard"
    colour: Literal["black", "white"] = "black"


class Discriminated(ToolInput):
    pet: Annotated[Cat | Dog | Lizard, Field(discriminator="kind")]
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []


class NestedDiscriminated(ToolInput):
    pet: Annotated[
        Annotated[Cat | Dog, Field(discriminator="kind")] | Lizard,
        Field(discriminator="kind"),
    ]


class Tree(ToolInput):
    value: int
    children: list[Tree] = []
    parent: Tree | None = None


class Expression(ToolInput):
    operator: Literal["+", "*"]
    left: Expression | float
    right: Expression | float


class Person(ToolInput):
    name: str
    pets: list[Animal] = []


class Animal(BaseModel):
    species: str
    owner: Person | None = None


class Lists(ToolInput):
    plain: list[int]
    sized: list[str] = Field(min_length=2, max_length=4)
    nested: list[list[bool]]
    anything: list[Any]
    queue: deque[int]
    many: list[int] = Field(min_length=30)


class Tuples(ToolInput):
    pair: tuple[int, str]
    homogeneous: tuple[float, ...]
    empty: tuple[()]
    nested: tuple[tuple[int, int], list[bool]]


class Sets(ToolInput):
    numbers: set[int]
    letters: frozenset[Literal["a", "b", "c"]]
    all_of_them: set[Literal[1, 2, 3]] = Field(min_length=3)
    flags: set[bool] = Field(min_length=2)
    words: set[str] = Field(min_length=3, max_length=5)


class Mappings(ToolInput):
    plain: dict[str, int]
    by_number: dict[int, str]
    by_enum: dict[Color, int]
    by_pattern: dict[Annotated[str, Field(pattern=r"^[a-z]{2}\d$")], bool]
    by_length: dict[Annotated[str, Field(min_length=3, max_length=5)], bool]
    anything: dict[str, Any]
    sized: dict[str, int] = Field(min_length=2, max_length=3)
    untyped: dict  # type: ignore[type-arg]


class Forbidding(ToolInput):
    model_config = ConfigDict(extra="forbid")

    a: int
    b: int = 2


class Allowing(ToolInput):
    model_config = ConfigDict(extra="allow")

    a: int
    b: str | None = None


class AllowingTyped(ToolInput):
    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, int]
    a: str


class Aliased(ToolInput):
    name: str = Field(alias="fullName", min_length=1)
    items: list[int] = Field(default_factory=list, alias="the items")
    slashed: int = Field(0, alias="a/b~c")


class Times(ToolInput):
    moment: dt.datetime
    aware: pydantic.AwareDatetime
    day: dt.date
    clock: dt.time
    span: dt.timedelta


class Identifiers(ToolInput):
    any_uuid: uuid.UUID
    one: pydantic.UUID1
    three: pydantic.UUID3
    four: pydantic.UUID4
    five: pydantic.UUID5


class Networks(ToolInput):
    v4: ipaddress.IPv4Address
    v6: ipaddress.IPv6Address
    net4: ipaddress.IPv4Network
    net6: ipaddress.IPv6Network
    interface4: ipaddress.IPv4Interface
    interface6: ipaddress.IPv6Interface
    either: pydantic.IPvAnyAddress
    any_net: pydantic.IPvAnyNetwork
    any_interface: pydantic.IPvAnyInterface
    url: pydantic.AnyUrl
    http: pydantic.HttpUrl


class Bytes(ToolInput):
    raw: bytes
    encoded: pydantic.Base64Bytes
    text: pydantic.Base64Str
    url: pydantic.Base64UrlStr
    sized: bytes = Field(min_length=3, max_length=9)


class Decimals(ToolInput):
    plain: decimal.Decimal
    bounded: decimal.Decimal = Field(gt=0, le=10)
    digits: decimal.Decimal = Field(max_digits=4, decimal_places=2)
    money: decimal.Decimal = Field(ge=0, max_digits=6, decimal_places=2)


class Special(ToolInput):
    path: pathlib.Path
    directory: pydantic.DirectoryPath
    expression: re.Pattern[str]
    secret: pydantic.SecretStr
    document: pydantic.Json[list[int]]
    any_document: pydantic.Json[Any]
    anything: Any
    thing: object
    size: pydantic.ByteSize


class Point(NamedTuple):
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    verbose: bool
    depth: int


@dataclasses.dataclass
class Box:
    width: float
    height: float = 1.0


class OtherClasses(ToolInput):
    point: Point
    options: Options
    box: Box


class Roots(pydantic.RootModel[dict[str, int]]):
    pass


class RootList(pydantic.RootModel[list[int]]):
    pass


class Rooted(ToolInput):
    mapping: Roots
    listing: RootList


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: T | None = None


DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
NARROWED = {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 9}]}
EXCLUDED = {**DIGIT, "not": {"enum": [3, 4]}}
EXACTLY_ONE = {"oneOf": [{**DIGIT, "maximum": 6}, {**DIGIT, "minimum": 4}]}
POWER = {"properties": {"power": {"type": "integer"}}, "required": ["power"]}
CONDITIONAL = {
    "type": "object",
    "properties": {"mode": {"enum": ["on", "off"]}},
    "required": ["mode"],
    "if": {"properties": {"mode": {"const": "on"}}},
    "then": POWER,
}
EITHER_MEMBER = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    "additionalProperties": False,
}
TYPED = {"type": ["integer", "null", "string"]}


class Described(ToolInput):
    """Fields whose schemas were written by hand, with keywords of all kinds."""

    narrowed: Annotated[int, WithJsonSchema(NARROWED)]
    excluded: Annotated[int, WithJsonSchema(EXCLUDED)]
    exactly_one: Annotated[int, WithJsonSchema(EXACTLY_ONE)]
    conditional: Annotated[dict[str, Any], WithJsonSchema(CONDITIONAL)]
    typed: Annotated[Any, WithJsonSchema(TYPED)]
    either_member: Annotated[dict[str, int], WithJsonSchema(EITHER_MEMBER)]


class Nothing(ToolInput):
    pass


_tools: list[type[BaseModel]] = [*ToolInput.__subclasses__(), Page[int], Page[Inner]]
MODELS = {
    model.__name__.lower().replace("[", "_").replace("]", ""): model for model in _tools
}
"""A tool's name to what its input must be."""

"""The database of a task of ``sql``: a small shop."""

from __future__ import annotations

from random import Random
from typing import Final

__all__ = ["CATEGORIES", "CITIES", "MONTHS", "SCHEMA", "Rows", "make_rows"]

Rows = dict[str, list[tuple[int | str, ...]]]

CITIES: Final = ("Lisbon", "Oslo", "Prague", "Quito", "Riga", "Seoul")
CATEGORIES: Final = ("books", "garden", "kitchen", "music", "toys")
MONTHS: Final = tuple(f"2024-{month:02}" for month in range(1, 7))

SCHEMA: Final = """\
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT, joined TEXT);
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, category TEXT,
    price_cents INTEGER);
CREATE TABLE orders (id INTEGER PRIMARY KEY,
    customer_id INTEGER REFERENCES customers, ordered_on TEXT, status TEXT);
CREATE TABLE order_items (order_id INTEGER REFERENCES orders,
    product_id INTEGER REFERENCES products, quantity INTEGER);
"""

_FIRST: Final = ("Ana", "Bo", "Carla", "Dag", "Eva", "Finn", "Gita", "Hugo")
_LAST: Final = ("Aalto", "Berg", "Costa", "Diaz", "Endo", "Fox")
_ADJECTIVES: Final = ("Blue", "Folding", "Large", "Little", "Old", "Silver")
_NOUNS: Final = ("Bell", "Bowl", "Lamp", "Rake", "Stool", "Tin")
_STATUSES: Final = ("delivered", "delivered", "delivered", "cancelled", "open")


def make_rows(generator: Random) -> Rows:
    """Make up the rows of a shop.

    Args:
        generator: Decides everything.

    Returns:
        For each table its rows: 48 customers, 36 products, 300 orders and about 750
        order items. Some customers never order.
    """
    names = [f"{first} {last}" for first in _FIRST for last in _LAST]
    goods = [f"{adjective} {noun}" for adjective in _ADJECTIVES for noun in _NOUNS]
    generator.shuffle(names)
    generator.shuffle(goods)
    buyers = generator.sample(range(1, len(names) + 1), 36)
    orders: list[tuple[int | str, ...]] = []
    items: list[tuple[int | str, ...]] = []
    for number in range(1, 301):
        day = f"{generator.choice(MONTHS)}-{generator.randint(1, 28):02}"
        buyer, status = generator.choice(buyers), generator.choice(_STATUSES)
        orders.append((number, buyer, day, status))
        for product in generator.sample(range(1, 37), generator.randint(1, 4)):
            items.append((number, product, generator.randint(1, 9)))  # noqa: PERF401
    return {
        "customers": [
            (number, name, generator.choice(CITIES), f"2023-{number % 12 + 1:02}-01")
            for number, name in enumerate(names, 1)
        ],
        "products": [
            (number, name, generator.choice(CATEGORIES), generator.randint(99, 9999))
            for number, name in enumerate(goods, 1)
        ],
        "orders": orders,
        "order_items": items,
    }

"""The names that scenarios are made of: people, places, products and their options.

The splits share none of them, nor any number of an order, an item or a parcel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    first: tuple[str, ...]
    last: tuple[str, ...]
    streets: tuple[str, ...]
    cities: tuple[str, ...]
    products: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]
    "Values by option."
    orders: range
    items: range
    parcels: range


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


TRAIN = Names(
    first=_words("Ada Bruno Carmen Dario Edith Farid Gerda Hakim Ingrid Jonas Keiko Lionel Mara Nadia Osman Petra"),
    last=_words("Abbott Bellini Castro Dahl Eriksen Fontaine Grant Hartley Ibsen Jansen Keller Lindqvist Moreau Novak"),
    streets=_phrases("Mill Lane, Station Road, Orchard Way, Chapel Street, Bridge Walk, Market Hill, Quarry Close"),
    cities=_words("Ashford Brackley Colwyn Dunmore Elsworth Farnham Glenrock Hexley Ilford Kendal"),
    products=_phrases(
        "walnut lamp, linen apron, copper kettle, wool blanket, garden stool, tea tray, bread bin, wall clock, "
        "picnic basket, door mat"
    ),
    options={
        "colour": _words("red blue green grey black"),
        "size": _words("small medium large"),
        "finish": _words("matt polished brushed"),
    },
    orders=range(10_000, 55_000),
    items=range(1_000, 5_500),
    parcels=range(100_000, 550_000),
)

TEST = Names(
    first=_words("Ursel Viggo Wanda Ximena Yusuf Zelda Rahel Silvan Tamara"),
    last=_words("Okafor Pereira Quist Rossi Sandberg Tanaka Ullmann Vargas"),
    streets=_phrases("Harbour View, Priory Gate, Windmill Rise, Canal Terrace, Abbey Green"),
    cities=_words("Netherby Oakham Penrith Rothwell Selby"),
    products=_phrases("oak bookend, cork coaster set, enamel jug, felt slipper, brass candlestick, jute rug"),
    options={
        "shade": _words("ivory teal amber plum"),
        "width": _words("narrow regular wide"),
        "edge": _words("plain fringed scalloped"),
    },
    orders=range(55_000, 100_000),
    items=range(5_500, 10_000),
    parcels=range(550_000, 1_000_000),
)

NAMES: Mapping[str, Names] = {"train": TRAIN, "test": TEST}

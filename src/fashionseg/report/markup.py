"""HTML as a tree: whatever is put in as text comes out as text, so that no name from the data can break a page."""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

Child = Element | str | int | float | None


def tag(name: str, *children: Child, **attributes: str | int | float | bool | None) -> Element:
    """An element; None among the children or attributes is left out, True is an attribute without a value.

    An attribute's `_` stands for `-`, and one at the end, which keeps Python's own words apart, for nothing.
    """
    element = Element(name)
    for key, value in attributes.items():
        if value is not None and value is not False:
            element.set(key.rstrip("_").replace("_", "-"), "" if value is True else str(value))
    add(element, *children)
    return element


def add(element: Element, *children: Child) -> None:
    """Appends elements and text."""
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif child is not None and len(element):
            element[-1].tail = (element[-1].tail or "") + str(child)
        elif child is not None:
            element.text = (element.text or "") + str(child)


def document(head: list[Element], body: list[Element], title: str) -> str:
    """A whole page; `style` and `script` elements hold their text as it is."""
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            *head,
        ),
        tag("body", *body),
        lang="en",
    )
    return "<!DOCTYPE html>\n" + ElementTree.tostring(page, encoding="unicode", method="html") + "\n"

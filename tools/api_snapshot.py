"""Keeps docs/api.txt, the public names of Seawall with their signatures, equal to the code; `--write` updates it.

The text is the same under every supported Python: annotations are shown as the source has them, and nothing is shown
that the interpreter makes up itself.
"""

from __future__ import annotations

import ast
import difflib
import enum
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.txt"
MODULES = (
    "seawall",
    "seawall.events",
    "seawall.errors",
    "seawall.http",
    "seawall.integrations.asgi",
    "seawall.integrations.httpx",
    "seawall.integrations.wsgi",
    "seawall.outbox",
    "seawall.testing",
)
SPECIAL_METHODS = {
    "__aenter__",
    "__aexit__",
    "__aiter__",
    "__anext__",
    "__bool__",
    "__call__",
    "__contains__",
    "__enter__",
    "__exit__",
    "__getitem__",
    "__iter__",
    "__len__",
    "__next__",
}
HEAD = """\
The public names of Seawall: what may be relied on. Made by `./dev api`; a change here is a change for users,
so it belongs in CHANGELOG.md too.
"""


def main(arguments: list[str]) -> int:
    """Compare, or write with `--write`; 1 if the page is out of date."""
    now = render()
    if arguments == ["--write"]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(now, encoding="utf-8")
        return 0
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if now == before:
        return 0
    changes = difflib.unified_diff(before.splitlines(), now.splitlines(), "docs/api.txt", "the code", lineterm="")
    print(*changes, sep="\n")
    print("\nThe public API differs from docs/api.txt. If you meant that: ./dev api, and a line in CHANGELOG.md.")
    return 1


def render() -> str:
    """The whole page."""
    homes: dict[Any, str] = {}
    """The classes and functions of the page, each under the first name that leads to it."""
    entries: dict[str, dict[str, Any]] = {}
    for module_name in MODULES:
        module = import_module(module_name)
        entries[module_name] = {name: getattr(module, name) for name in sorted(module.__all__)}
        for name, thing in entries[module_name].items():
            if isinstance(thing, type | types.FunctionType):
                homes.setdefault(thing, f"{module_name}.{name}")
    sections = [HEAD]
    for module_name, things in entries.items():
        texts = ["\n".join(_describe(name, thing, f"{module_name}.{name}", homes)) for name, thing in things.items()]
        sections.append("\n".join([f"== {module_name}", "", *_spaced(texts)]) + "\n")
    return "\n".join(sections)


def _spaced(texts: list[str]) -> Iterator[str]:
    """An empty line around whatever takes several."""
    for index, text in enumerate(texts):
        if index and ("\n" in text or "\n" in texts[index - 1]):
            yield ""
        yield text


def _describe(name: str, thing: Any, path: str, homes: dict[Any, str]) -> Iterator[str]:
    if isinstance(thing, type | types.FunctionType) and homes[thing] != path:
        yield f"{name} = {homes[thing]}"
    elif isinstance(thing, types.ModuleType):
        yield f"module {name}"
    elif isinstance(thing, type) and not isinstance(thing, types.GenericAlias):
        yield from _class(name, thing, homes)
    elif isinstance(thing, types.FunctionType):
        yield from _function(name, thing)
    elif isinstance(thing, str):
        yield f"{name}: str"
    elif type(thing).__module__.startswith("seawall"):
        yield f"{name}: {type(thing).__name__}"
    else:
        yield f"{name} = {_plain(repr(thing))}"


def _class(name: str, kind: type, homes: dict[Any, str]) -> Iterator[str]:
    bases = ", ".join(_plain(_name_of(base)) for base in kind.__bases__ if base not in (object, typing.Generic))
    yield f"class {name}({bases})" if bases else f"class {name}"
    if issubclass(kind, enum.Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in kind)
        return
    members: dict[str, list[str]] = {}
    # From the base down, so that what a class defines itself replaces what it inherits. Public bases tell their own.
    for owner in reversed(kind.__mro__):
        if owner is kind or (owner.__module__.startswith("seawall") and owner not in homes):
            members.update(_members(owner, kind))
    constructor = members.pop("__init__", None)
    yield from (f"    {line}" for line in constructor or ())
    yield from (f"    {line}" for member in sorted(members) for line in members[member])


def _members(owner: type, kind: type) -> Iterator[tuple[str, list[str]]]:
    """What `owner`, a class in the ancestry of `kind`, contributes: name and lines."""
    for name in sorted(_own_attributes(owner)):
        yield name, [name]
    for name, annotation in _annotations(owner).items():
        if not name.startswith("_"):
            yield name, [f"{name}: {annotation}" + _default(owner, name)]
    is_protocol = getattr(kind, "_is_protocol", False)
    for name, member in vars(owner).items():
        if name == "__init__" and not is_protocol:
            yield name, list(_function(name, member))
        elif name.startswith("_") and name not in SPECIAL_METHODS:
            continue
        elif isinstance(member, staticmethod | classmethod):
            yield name, [f"{type(member).__name__} {line}" for line in _function(name, member.__func__)]
        elif isinstance(member, types.FunctionType):
            yield name, list(_function(name, member))
        elif isinstance(member, property):
            returns = _annotation(member.fget.__annotations__.get("return", Any)) if member.fget else "Any"
            yield name, [f"property {name}: {returns}"]


def _own_attributes(owner: type) -> set[str]:
    """The public attributes that the constructor sets or the slots name."""
    slots = vars(owner).get("__slots__", ())
    found = {slots} if isinstance(slots, str) else set(slots)
    constructor = vars(owner).get("__init__")
    if isinstance(constructor, types.FunctionType) and not constructor.__code__.co_filename.startswith("<"):
        tree = ast.parse(textwrap.dedent(inspect.getsource(constructor)))
        found |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        }
    return {name for name in found if not name.startswith("_") and not hasattr(object, name)}


def _annotations(owner: type) -> dict[str, str]:
    return {name: _annotation(value) for name, value in inspect.get_annotations(owner).items()}


def _default(owner: type, name: str) -> str:
    value = vars(owner).get(name, inspect.Parameter.empty)
    is_slot = isinstance(value, types.MemberDescriptorType) or type(value).__name__ == "_tuplegetter"
    return "" if is_slot or value is inspect.Parameter.empty else f" = {_value(value)}"


def _function(name: str, function: Callable[..., Any]) -> Iterator[str]:
    overloads = typing.get_overloads(function)
    for shape in overloads or [function]:
        word = "async def" if inspect.iscoroutinefunction(shape) else "def"
        yield f"{word} {name}{_signature(inspect.signature(shape))}"


def _signature(signature: inspect.Signature) -> str:
    """As `str(signature)`, with annotations as written and without objects' addresses."""
    parts: list[str] = []
    parameters = list(signature.parameters.values())
    for index, parameter in enumerate(parameters):
        before = parameters[index - 1].kind if index else None
        if before is inspect.Parameter.POSITIONAL_ONLY is not parameter.kind:
            parts.append("/")
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and before not in (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_POSITIONAL,
        ):
            parts.append("*")
        parts.append(_parameter(parameter))
    if parameters and parameters[-1].kind is inspect.Parameter.POSITIONAL_ONLY:
        parts.append("/")
    returns = "" if signature.return_annotation is inspect.Signature.empty else _annotation(signature.return_annotation)
    return f"({', '.join(parts)})" + (f" -> {returns}" if returns else "")


def _parameter(parameter: inspect.Parameter) -> str:
    text = parameter.name
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        text = f"*{text}"
    elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
        text = f"**{text}"
    is_typed = parameter.annotation is not inspect.Parameter.empty
    if is_typed:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not inspect.Parameter.empty:
        text += (" = " if is_typed else "=") + _value(parameter.default)
    return text


def _annotation(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation.strip("'\"")
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    return _plain(_name_of(annotation))


def _name_of(thing: Any) -> str:
    if thing is None or thing is type(None):
        return "None"
    is_bare_class = isinstance(thing, type) and not isinstance(thing, types.GenericAlias)
    return thing.__qualname__ if is_bare_class else repr(thing)


def _value(value: object) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return value.__qualname__
    text = repr(value)
    return "..." if " at 0x" in text or text.startswith("<") else _plain(text)


def _plain(text: str) -> str:
    """`text` without the modules that names come from, and without object addresses."""
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return re.sub(r"\b(?:typing|collections\.abc|types|enum|builtins|seawall(?:\.\w+)*)\.(?=\w)|~(?=[A-Z])", "", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Finds the outbox that a command line names: `module:attribute`, or the URL of a store."""

import importlib
import re
import sys
import traceback
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from seawall.errors import ConfigError

__all__ = ["Unfit", "import_module", "outbox_of", "store_words", "without_password"]

_PASSWORD = re.compile(r"(://[^\s/?#@:]*):[^\s/?#]*@")
_QUERY_PASSWORD = re.compile(r"(?i)([?&](?:password|passwd|token|secret)=)[^&\s'\")]*")


class Unfit(Exception):
    """What was named is none; the text says why, and what to do."""


def without_password(text: str) -> str:
    """`text`, with the passwords of URLs in it blotted out."""
    return _QUERY_PASSWORD.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def store_words(store: object) -> str:
    """What a store calls itself, without its password."""
    try:
        return without_password(repr(store))
    except Exception:  # noqa: BLE001  # a store of somebody else's
        return type(store).__name__


def import_module(name: str) -> Any:
    """A module that is found from the current directory too. Raises `Unfit`, with the traceback of its own code."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Unfit(
                f"there is no module {error.name!r}; looked in {here} and where Python looks for modules"
            ) from None
        raise Unfit(_importing(name, error)) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever the user's module does when it is imported
        raise Unfit(_importing(name, error)) from None


def _importing(name: str, error: BaseException) -> str:
    lines = traceback.format_exception(type(error), error, _theirs(error.__traceback__))
    return f"importing {name!r} failed\n{''.join(lines).rstrip()}"


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins with the user's own code."""
    ours = {__file__, importlib.__file__}
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file not in ours and not file.startswith("<frozen importlib"):
            return trace
        trace = trace.tb_next
    return None


def outbox_of(target: str) -> Any:
    """The outbox at `module:attribute`; a function there is called without arguments. Raises `Unfit`."""
    from seawall.outbox import Outbox  # noqa: PLC0415  # the other commands do without it

    module_name, colon, path = target.partition(":")
    good = all(part.isidentifier() for part in module_name.split("."))
    if not colon or not good or not all(part.isidentifier() for part in path.split(".")):
        raise Unfit(f"{target!r} names no outbox: expected module:attribute, such as app:outbox")
    found: Any = import_module(module_name)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise Unfit(f"{module_name!r} has no attribute {path!r}{_candidates(module_name)}") from None
    if _makes_one(found):
        try:
            found = found()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # as above
            raise Unfit(_importing(f"{target}()", error).replace("importing", "calling", 1)) from None
    if not isinstance(found, Outbox):
        raise Unfit(f"{target} is a {type(found).__name__}, and no Outbox{_candidates(module_name)}")
    return found


def _makes_one(value: object) -> bool:
    """Whether it is a function or class, and no object that happens to be callable, such as an application."""
    return hasattr(value, "__qualname__") or isinstance(value, partial)


def _candidates(module_name: str) -> str:
    from seawall.outbox import Outbox  # noqa: PLC0415  # as above

    there = vars(sys.modules[module_name])
    names = [f"{module_name}:{name}" for name, value in there.items() if isinstance(value, Outbox)]
    return f"; there is {' and '.join(names)}" if names else ""


def store_at(url: str, name: str) -> Any:
    """The store of a URL. Raises `Unfit`."""
    from seawall.outbox.urls import store_of  # noqa: PLC0415  # as above

    if url.startswith("memory:"):
        raise Unfit("the records of memory:// live in the process that put them there; nobody else can see them")
    _refuse_missing_file(url)
    try:
        return store_of(url, name, {})
    except (ConfigError, ImportError) as error:
        raise Unfit(without_password(str(error))) from None


def _refuse_missing_file(url: str) -> None:
    # A store creates its file; a command that looks into one must not, for a name that is misspelled.
    if not url.startswith("sqlite:///"):
        return
    path = Path(unquote(url.removeprefix("sqlite:///").partition("?")[0]))
    if not path.exists():
        raise Unfit(f"there is no file {path}")

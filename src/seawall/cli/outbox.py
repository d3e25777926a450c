"""`seawall outbox`: what lies in an outbox, and what an operator does about it."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from seawall.cli import outbox_print as show
from seawall.cli.outbox_target import Unfit, outbox_of, store_at, without_password
from seawall.errors import ConfigError

if TYPE_CHECKING:
    from seawall.cli.outbox_records import Records

VARIABLE = "SEAWALL_OUTBOX_URL"
STATES = ("waiting", "leased", "dead", "dropped")
WORDS = {"dead": "dead letters", "waiting": "waiting records", "dropped": "entries of dropped records"}
ONE = {"dead": "dead letter", "waiting": "waiting record", "dropped": "entry of a dropped record"}
EPILOG = (
    "TARGET is a store, such as sqlite:///var/outbox.db, or an outbox in a program, such as app:outbox. Without it the "
    f"store in ${VARIABLE} is meant, which keeps a password out of the list of processes. Exit code 0: done; 1: not "
    "all of it; 2: it cannot be done as asked."
)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:  # pyright: ignore[reportPrivateUsage]  # it has no public name
    """Add the command and its own commands to the command line."""
    parser = commands.add_parser("outbox", help="look after what waits in an outbox", epilog=EPILOG)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int], words: str, *, ids: str = "") -> None:
        made = verbs.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.", epilog=EPILOG)
        made.add_argument("args", nargs="*", metavar=f"TARGET{ids and f' {ids}'}", help="see below")
        made.add_argument("--name", default="outbox", help="of the outbox, with a URL (default %(default)s)")
        made.add_argument("--json", action="store_true", help="tell it as JSON")
        if name in {"list", "export", "purge"}:
            _add_state(made, name)
        if name in {"list", "export", "purge", "retry-dead"}:
            made.add_argument("--operation", metavar="NAME", help="only records of this operation")
        if name in {"list", "export"}:
            default = 50 if name == "list" else None
            made.add_argument("--limit", type=_limit, default=default, metavar="N", help="so many at most")
        if name == "purge":
            made.add_argument("--yes", action="store_true", help="do not ask")
        if name == "export":
            made.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
        made.set_defaults(run=_guarded(name, run), ids=bool(ids))

    verb("stats", _stats, "count the records, and tell the age of the oldest")
    verb("list", _list, "list records, oldest first, without what is in them")
    verb("show", _show, "show records, and what is in them", ids="ID...")
    verb("retry", _retry, "give dead letters another life: all their attempts and all their time", ids="ID...")
    verb("retry-dead", _retry_dead, "give all dead letters another life")
    verb("purge", _purge, "forget records for ever, all of a state or those named", ids="[ID...]")
    verb("export", _export, "write records, and what is in them, as lines of JSON")


def _add_state(parser: argparse.ArgumentParser, name: str) -> None:
    if name == "purge":
        parser.add_argument("--state", choices=tuple(WORDS), required=True)
    else:
        default = "waiting" if name == "list" else "dead"
        parser.add_argument("--state", choices=STATES, default=default, help="default %(default)s")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:12]) > 0 and len(text) < 12):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def _guarded(name: str, run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """`run` with what may be wrong told in words."""
    command = f"outbox {name}"

    def guarded(options: argparse.Namespace) -> int:
        show.print_anything()
        # The error that is raised says what it logs as well; without a handler Python would print both.
        logging.getLogger("aiormq").addHandler(logging.NullHandler())
        try:
            options.records, options.chosen = _find(options)
            try:
                return run(options)
            finally:
                options.records.close()
        except Unfit as error:
            first, *rest = str(error).split("\n")
            code = show.fail(command, first)
            for line in rest:
                show.say(show.safe(line))
            return code
        except ConfigError as error:
            return show.fail(command, without_password(str(error)))  # this kind of store cannot do it
        except BrokenPipeError:
            raise  # the reader has left: `main` knows what to do
        except Exception as error:  # noqa: BLE001  # whatever a store raises: a message, and exit code 1
            return show.fail(command, without_password(f"the store failed: {type(error).__name__}: {error}"), 1)

    return guarded


def _find(options: argparse.Namespace) -> "tuple[Records, Sequence[str]]":
    """The store and the ids on the command line. An id has no colon in it, and a target has."""
    from seawall.cli.outbox_records import Records  # noqa: PLC0415  # the other commands do without it

    args: list[str] = options.args
    target, ids = (args[0], args[1:]) if args and ":" in args[0] else (os.environ.get(VARIABLE, ""), args)
    if not target:
        raise Unfit(f"expected a store such as sqlite:///var/outbox.db, app:outbox, or a URL in ${VARIABLE}")
    if ids and not options.ids:
        raise Unfit(f"{ids[0]!r} is too much: expected a store, and nothing after it")
    if "://" in target:
        return Records(store_at(target, options.name)), ids
    outbox = outbox_of(target)
    if not outbox.store.durable:
        raise Unfit(f"{target} is in the memory of the process that fills it, which no other can see")
    return Records(outbox.store), ids


# -- looking -----------------------------------------------------------------------------------------------------------


def _stats(options: argparse.Namespace) -> int:
    told = options.records.stats()
    if options.json:
        print(show.as_json(told))
        return 0
    oldest = "-" if not told["waiting"] + told["leased"] else "not known to this kind of store"
    if told["oldest_age"] is not None:
        oldest = f"{show.age(told['oldest_age'])} old"
    rows = [(key, f"{told[key]:,}") for key in STATES]
    print("\n".join(f"{key:<8} {value}" for key, value in [*rows, ("oldest", oldest)]))
    return 0


def _list(options: argparse.Namespace) -> int:
    from seawall.cli.outbox_records import brief, row_head  # noqa: PLC0415  # as above

    limit: int = options.limit
    found = list(options.records.each(options.state, options.operation, limit + 1))
    shown = found[:limit]
    if options.json:
        print(show.as_json([options.records.told(work, options.state, payload=False) for work in shown]))
    else:
        print(show.table(row_head(options.state), (brief(work, options.state) for work in shown), show.columns()))
    if len(found) > limit:
        show.say(f"There are more than these {limit:,}: --limit shows more, export all.")
    return 0


def _show(options: argparse.Namespace) -> int:
    if not options.chosen:
        raise Unfit("expected the id of a record, or several")
    told: list[dict[str, object]] = []
    missing = 0
    for key in options.chosen:
        found = options.records.find(key)
        if found is None:
            missing += 1
            show.fail("outbox show", f"there is no record {key}", 1)
        else:
            told.append(options.records.told(found[0], found[1], payload=True))
    if options.json:
        print(show.as_json(told))
    elif told:
        print("\n\n".join(map(show.sheet, told)))
    return int(missing > 0)


def _export(options: argparse.Namespace) -> int:
    from seawall.cli.outbox_export import export  # noqa: PLC0415  # as above

    return export(options.records, options.state, options.operation, options.limit, options.output)


# -- doing -------------------------------------------------------------------------------------------------------------


def _retry(options: argparse.Namespace) -> int:
    if not options.chosen:
        raise Unfit("expected the id of a dead letter, or several; retry-dead retries all")
    ids: list[str] = []
    for key in dict.fromkeys(options.chosen):
        found = options.records.find(key)
        if found is None:
            show.fail("outbox retry", f"there is no record {key}", 1)
        elif found[1] != "dead":
            why = {"dropped": "its payload is gone", "leased": "a worker has it now"}
            show.fail("outbox retry", f"{key} is {found[1]}: {why.get(found[1], 'it is due by itself')}", 1)
        else:
            ids.append(key)
    done = options.records.in_batches(ids, options.records.replay, "retrying")
    _told(options, {"retried": done}, f"{done:,} of {len(set(options.chosen)):,} dead letters are due again.")
    return int(done < len(set(options.chosen)))


def _retry_dead(options: argparse.Namespace) -> int:
    ids = options.records.ids("dead", options.operation)
    done = options.records.in_batches(ids, options.records.replay, "retrying")
    _told(options, {"retried": done}, f"{done:,} of {len(ids):,} dead letters are due again.")
    return int(done < len(ids))


def _purge(options: argparse.Namespace) -> int:
    records: Records = options.records
    state: str = options.state
    chosen, missing = list(dict.fromkeys(options.chosen)), 0
    if not chosen:
        try:
            ids = records.ids(state, options.operation)
        except ConfigError:
            if options.operation is not None:
                raise
            return _purge_unseen(options)
    else:
        ids = [key for key in chosen if _is_there(records, key, state, options.operation)]
        missing = len(chosen) - len(ids)
    if ids and not options.yes and not _sure(f"Forget {_counted(len(ids), state)} for ever?"):
        _told(options, {"purged": 0}, "Nothing was forgotten.")
        return 1
    done = records.in_batches(ids, partial(records.purge, state), "forgetting")
    _told(options, {"purged": done}, f"{done:,} of {len(ids):,} {WORDS[state]} forgotten.")
    return int(done < len(ids) or missing > 0)


def _purge_unseen(options: argparse.Namespace) -> int:
    """Of a store that cannot list what waits (RabbitMQ): all of it, in one step."""
    count: int = options.records.stats()[options.state]
    if not options.yes and not _sure(f"Forget {_counted(count, options.state)} for ever?"):
        _told(options, {"purged": 0}, "Nothing was forgotten.")
        return 1
    done = options.records.purge(options.state, None)
    _told(options, {"purged": done}, f"{_counted(done, options.state)} forgotten.")
    return 0


def _counted(count: int, state: str) -> str:
    return f"{count:,} {(ONE if count == 1 else WORDS)[state]}"


def _is_there(records: "Records", key: str, state: str, operation: str | None) -> bool:
    found = records.find(key)
    if found is not None and found[1] == state and operation in {None, found[0].operation}:
        return True
    of = "" if operation is None else f" of {operation}"
    show.fail("outbox purge", f"there is no {state} record {key}{of}", 1)
    return False


def _told(options: argparse.Namespace, values: dict[str, int], words: str) -> None:
    print(show.as_json(values) if options.json else words)


def _sure(question: str) -> bool:
    """Ask a person. Raises `Unfit` where there is none."""
    if sys.stdin is None or not sys.stdin.isatty():  # None: it was closed before the start
        raise Unfit(f"{question} There is nobody to answer: say --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}

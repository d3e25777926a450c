"""`seawall doctor`: looks at a store's servers, says what is wrong with them, and what to do."""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError

if TYPE_CHECKING:
    from seawall.stores.valkey.doctor import Finding

VARIABLE = "SEAWALL_VALKEY_URL"


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:  # pyright: ignore[reportPrivateUsage]  # it has no public name
    """Add the command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="look at the servers of a store, and say what is wrong",
        description="Connects to the servers of a Valkey store and looks at their version, setup, rights, clocks and "
        "latency. Exit code 0: nothing stands in the way; 1: something does; 2: it could not be asked for.",
    )
    parser.add_argument(
        "url",
        nargs="?",
        default=os.environ.get(VARIABLE),
        help=f"as in Valkey(url): valkey://user@host:6379, valkey+cluster://... Default: ${VARIABLE}, which keeps "
        "a password out of the list of processes",
    )
    parser.add_argument("--prefix", default="seawall", help="of the store's keys (default %(default)s)")
    parser.add_argument("--connect-timeout", default="50ms", metavar="TIME", help="of the store (default %(default)s)")
    parser.add_argument("--timeout", default="25ms", metavar="TIME", help="of the store (default %(default)s)")
    parser.add_argument("--ca", metavar="FILE", help="certificates to trust, with TLS")
    parser.add_argument("--json", action="store_true", help="tell it as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examine; 0 without problems, 1 with some, 2 if the command cannot be carried out."""
    if not options.url:
        return _fail(f"expected a URL such as valkey://127.0.0.1:6379, or one in ${VARIABLE}")
    from seawall.stores.valkey import Valkey  # noqa: PLC0415  # the other commands do without it

    settings: dict[str, Any] = {"ssl_ca_certs": options.ca} if options.ca else {}
    try:
        store = Valkey(
            options.url,
            prefix=options.prefix,
            connect_timeout=options.connect_timeout,
            timeout=options.timeout,
            **settings,
        )
    except (ConfigError, ImportError) as error:
        return _fail(str(error))
    findings = store.examine()
    if options.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        print("\n".join(_lines(findings)))
    return int(any(finding.state == "problem" for finding in findings))


def _lines(findings: "list[Finding]") -> list[str]:
    lines: list[str] = []
    server = ""
    for finding in findings:
        if finding.server != server:
            server = finding.server
            lines.append(server)
        lines.append(f"  {finding.state:<8} {finding.about:<11} {finding.said}")
        if finding.advice:
            lines.append(f"  {'':<8} {'':<11} -> {finding.advice}")
    problems = sum(finding.state == "problem" for finding in findings)
    warnings = sum(finding.state == "warning" for finding in findings)
    lines.append(
        f"{problems or 'no'} problem{'s' * (problems != 1)}, {warnings or 'no'} warning{'s' * (warnings != 1)}"
    )
    return lines


def _fail(message: str) -> int:
    print(f"seawall doctor: {message}", file=sys.stderr)
    return 2

"""For all tests: the threads of bulkheads end with the test that started them, and what a test starts hears Ctrl-C."""

import signal

from tests.policies.worlds import workers_go_home

__all__ = ["workers_go_home"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs deaf to SIGINT, and every process below inherits that: the tests of Ctrl-C would
    # wait for ever when .ci/run runs interpreters side by side.
    signal.signal(signal.SIGINT, signal.default_int_handler)

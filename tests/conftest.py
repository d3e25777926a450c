"""For all tests: the threads of bulkheads end with the test that started them."""

from tests.policies.worlds import workers_go_home

__all__ = ["workers_go_home"]

"""Every test here begins without worker threads of the one before."""

from __future__ import annotations

from tests.policies.worlds import workers_go_home

__all__ = ["workers_go_home"]

"""What the HTTP edges share: what may be sent twice, whom to believe, how long to wait, how a refusal is answered.

For frameworks and clients that Seawall has no integration for:

- `problem_for(error)`: status, headers and body of the answer to a refusal, for an error handler;
- `outward_headers()`: the headers that carry deadline, criticality and attempt to the service that is called;
- `retry_after(value)`: the seconds that a Retry-After header asks for.

For requests that go out: `Pace` keeps to what a server says of its limits; `announced(headers.get)` reads that.

For limits at an entrance: `ClientAddress`, `api_key`, `user_key` and `first_of` are key functions, which tell callers
apart by a `Request`.

For all clients that send through clusters: `sending(...)` says what may be sent twice, `BadAnswer` is a response that
means failure, `Served` tells how a request was served.
"""

from seawall.http.answers import BadAnswer, Served
from seawall.http.callers import api_key, first_of, user_key
from seawall.http.client_address import ClientAddress
from seawall.http.pacing import Pace
from seawall.http.problem import Problem, problem_for
from seawall.http.propagation import outward_headers
from seawall.http.rate_fields import Announced, announced
from seawall.http.request import Request
from seawall.http.retry_after import retry_after
from seawall.http.sending import sending

__all__ = [
    "Announced",
    "BadAnswer",
    "ClientAddress",
    "Pace",
    "Problem",
    "Request",
    "Served",
    "announced",
    "api_key",
    "first_of",
    "outward_headers",
    "problem_for",
    "retry_after",
    "sending",
    "user_key",
]

"""What the HTTP edges share: what may be sent twice, whom to believe, how long to wait, how a refusal is answered.

For frameworks and clients that Seawall has no integration for:

- `problem_for(error)`: status, headers and body of the answer to a refusal, for an error handler;
- `outward_headers()`: the headers that carry deadline, criticality and attempt to the service that is called;
- `retry_after(value)`: the seconds that a Retry-After header asks for.

For all clients that send through clusters: `sending(...)` says what may be sent twice, `BadAnswer` is a response that
means failure, `Served` tells how a request was served.
"""

from seawall.http.answers import BadAnswer, Served
from seawall.http.problem import Problem, problem_for
from seawall.http.propagation import outward_headers
from seawall.http.retry_after import retry_after
from seawall.http.sending import sending

__all__ = ["BadAnswer", "Problem", "Served", "outward_headers", "problem_for", "retry_after", "sending"]

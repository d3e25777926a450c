"""Limits per user and tier in FastAPI: who pays may ask more often, and what is expensive costs more."""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.testclient import TestClient

from seawall import Rule, Rules, TokenBucket
from seawall.integrations.fastapi import install, limited

USERS = {"key-ann": ("ann", "paid"), "key-bob": ("bob", "free")}

rules = Rules(
    Rule(TokenBucket("60/min", name="paid")),
    Rule(TokenBucket("5/min", name="free"), {"role": "free"}),
    Rule(TokenBucket("2/min", name="exports"), {"operation": "export", "role": "free"}),
    per=("user",),
    name="shop",
)  # in several processes: store=Valkey("valkey://...")


def account(x_api_key: Annotated[str, Header()]) -> dict[str, str]:
    """Authentication: whatever it is, the limit runs after it."""
    if x_api_key not in USERS:
        raise HTTPException(401, "unknown key")
    user, role = USERS[x_api_key]
    return {"user": user, "role": role}


app = FastAPI(dependencies=[Depends(limited(rules, key=account))])
install(app)  # refusals as problem+json, fields on every response


@app.get("/search")
def search(text: str) -> dict[str, str]:
    return {"found": text}


@app.get("/export")
def export() -> dict[str, int]:
    return {"rows": 1_000}


def main() -> None:
    client = TestClient(app)

    def ask(path: str, user: str, times: int) -> list[int]:
        return [client.get(path, headers={"X-API-Key": f"key-{user}"}).status_code for _ in range(times)]

    print("bob searches:", ask("/search?text=boots", "bob", 7))
    print("bob exports:", ask("/export", "bob", 3))
    print("ann searches:", ask("/search?text=boots", "ann", 7))
    print("a stranger:", ask("/search?text=boots", "eve", 1))

    refused = client.get("/search?text=boots", headers={"X-API-Key": "key-bob"})
    print(refused.json())
    told = client.get("/search?text=boots", headers={"X-API-Key": "key-ann"}).headers
    print(f"ann is told: RateLimit-Policy: {told['RateLimit-Policy']}, RateLimit: {told['RateLimit']}")


if __name__ == "__main__":
    main()

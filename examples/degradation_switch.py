"""A degradation switch: for a peak that you expect, the lesser answer is given without making the call."""

from seawall import Fallback, Policy, Switch, events, registry

sale = Switch("recommendations")
shelf = Policy(Fallback(["bestsellers"], when=sale), name="shelf")


@shelf
def recommend(user: str) -> list[str]:
    print(f"  (the expensive model works for {user})")
    return [f"chosen for {user}"]


def main() -> None:
    stop = events.subscribe(lambda event: print("  event:", event), events.SwitchChanged)
    print("before:", recommend("ada"))

    # In a service an operator's command would do this; it finds the switch by its name.
    registry.switches["recommendations"].turn_on(why="black friday", by="ops", lasting="6h")
    print("during the sale:", recommend("ada"))
    print(shelf.explain())

    registry.switches["recommendations"].turn_off(why="over", by="ops")
    print("after:", recommend("ada"))
    print("history:", [(turn.on, turn.by, turn.why) for turn in sale.history])
    stop()


if __name__ == "__main__":
    main()

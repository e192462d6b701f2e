"""In which order the link says things."""

from __future__ import annotations

from agent.picture import Picture
from tests.agent.gateway import Gateway, until
from tests.agent.test_link import Node, linked, play
from wire.messages import LeaseRequest, Placement, Status


def test_a_request_never_overtakes_the_placement_that_it_relies_on() -> None:
    """It is made for the newest reading, in the moment in which the link has just taken an older picture."""

    async def story(gateway: Gateway) -> None:
        async with linked(gateway) as node:
            await until(lambda: gateway.got(Status))
            newer = Placement(known=True, engine="newer")
            node.link._picture = lambda: repaint_and_ask(node, newer)
            node.link.nudge()
            await until(lambda: gateway.got(LeaseRequest))
            said = [message for message in gateway.heard if isinstance(message, Status | LeaseRequest)]
            told = [
                message for message in said[: said.index(gateway.got(LeaseRequest)[0])] if message.placement == newer
            ]
            assert told, "the request came before the placement"

    def repaint_and_ask(node: Node, newer: Placement) -> Picture:
        before = node.picture
        node.link._picture = lambda: node.picture
        node.show(placement=newer)
        node.link.say(LeaseRequest(operation_id="op", nonce="n"))
        return before

    play(story)

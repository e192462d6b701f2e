"""`python -m bench.gateway_servers gateway|bare FOLDER`: prints its port, and stops when its input ends.

`bare` is what the gateway is measured against: a websockets server with the same settings that decodes the same
frames with msgspec and does nothing else. After each event it answers with an ack, so that senders know when it
has read everything.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import msgspec
from websockets.asyncio.server import ServerConnection, serve

from app.config import Address
from app.gateway.limits import MAX_QUEUE, WRITE_LIMIT_BYTES
from app.gateway.server import Gateway
from app.store.database import open_database
from bench.gateway_world import many_files, run_on_fast_loop, settings_in
from wire.codec import encode
from wire.messages import MAX_FRAME_BYTES, PROTOCOL, Ack, FromNode, NodeEvent


def main(kind: str, folder: Path) -> None:
    many_files()
    run_on_fast_loop(_bare() if kind == "bare" else _gateway(folder))


def _listening(address: Address) -> None:
    gc.collect()
    print(f"listening {address.port}", flush=True)


async def _input_ends() -> None:
    await asyncio.to_thread(sys.stdin.read)


async def _gateway(folder: Path) -> None:
    db = open_database(settings_in(folder).database_url)
    stop = asyncio.Event()
    gateway = asyncio.create_task(Gateway(db, settings_in(folder)).run(stop, _listening))
    await asyncio.wait([gateway, asyncio.create_task(_input_ends())], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await gateway
    db.close()


async def _bare() -> None:
    decode = msgspec.json.Decoder(FromNode).decode

    async def handle(connection: ServerConnection) -> None:
        async for frame in connection:
            message = decode(frame)
            if type(message) is NodeEvent:
                await connection.send(encode(Ack(seq=message.seq))[0])

    async with serve(
        handle,
        "127.0.0.1",
        0,
        subprotocols=[PROTOCOL],
        compression=None,
        server_header=None,
        ping_interval=None,
        max_size=MAX_FRAME_BYTES,
        max_queue=MAX_QUEUE,
        write_limit=WRITE_LIMIT_BYTES,
    ) as server:
        _listening(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
        await _input_ends()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""A renewed certificate is served to the next connection, without a new context."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

from control.ca.authority import Authority
from control.serve.tls import ServerTls


def test_renewal_is_seen_by_the_next_connection(tmp_path: Path) -> None:
    async def story() -> None:
        authority = Authority.open(tmp_path / "ca", time.time())
        tls = ServerTls(lambda now: authority.issue_server(["127.0.0.1"], now, 3600.0))
        tls.renew()
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=tls.context)
        client = ssl.create_default_context(cadata=authority.root_pem.decode())

        async def served() -> bytes:
            port = server.sockets[0].getsockname()[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.transport.abort()
            return found

        first = await served()
        assert await served() == first
        tls.renew()
        assert await served() != first
        server.close()
        await server.wait_closed()

    asyncio.run(story())

#!/usr/bin/env bash
# h2 4.4.1 (PyPI; httpx speaks HTTP/2 by it): a client that has received a GOAWAY cannot take the responses that the
# same GOAWAY promises. RFC 9113 §6.8 lets a server go on with the streams up to the last id that it names: that is how
# a graceful shutdown loses nothing. h2 takes any GOAWAY for the end of the connection: the HEADERS that follow, of a
# stream that the GOAWAY covers, raise ProtocolError, and the client ends the connection with PROTOCOL_ERROR. With the
# two frames in the other order, all is well.
#
# So a server's GOAWAY with requests under way costs such a client those requests, whatever the server does.
#
# Seen with Python 3.11 on 2026-11-30:
#   response, then GOAWAY: ResponseReceived, ConnectionTerminated
#   GOAWAY, then response: ConnectionTerminated, ProtocolError in state ConnectionState.CLOSED
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0
"$folder/venv/bin/python" - <<'PYTHON'
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from hpack import Encoder
from hyperframe.frame import GoAwayFrame, HeadersFrame, SettingsFrame

REQUEST = [(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")]


def seen_by_a_client(goaway_first: bool) -> str:
    """What a client makes of a server that answers its only request, and says that it takes no more."""
    client = H2Connection()
    client.initiate_connection()
    client.send_headers(1, REQUEST, end_stream=True)
    client.receive_data(SettingsFrame(0).serialize())
    response = HeadersFrame(1, Encoder().encode([(":status", "204")]), flags=["END_HEADERS", "END_STREAM"])
    goaway = GoAwayFrame(0, last_stream_id=1, error_code=0)
    told = []
    for frame in (goaway, response) if goaway_first else (response, goaway):
        try:
            told += [type(event).__name__ for event in client.receive_data(frame.serialize())]
        except ProtocolError as error:
            told.append(f"ProtocolError in state {str(error).rpartition(' ')[2]}")
    return ", ".join(name for name in told if name != "StreamEnded")


after, before = seen_by_a_client(False), seen_by_a_client(True)
print("response, then GOAWAY:", after)
print("GOAWAY, then response:", before)
assert after == "ResponseReceived, ConnectionTerminated", "the behaviour has changed"
assert before == "ConnectionTerminated, ProtocolError in state ConnectionState.CLOSED", "the behaviour has changed"
PYTHON
echo "as described"

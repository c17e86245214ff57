#!/usr/bin/env bash
# h2 4.4.1 (PyPI; httpx speaks HTTP/2 by it): a client takes a 304 with a Content-Length for a good response where its
# HEADERS end the stream, and for a broken connection where an empty DATA frame does. A 304 may say how long the 200
# would have been (RFC 9110 §8.6), and where no content is allowed, the length need not match the DATA (RFC 9113
# §8.1.1). h2 knows that of HEAD, and not of 304: it raises InvalidBodyLengthError, which is a ProtocolError, so the
# client sends GOAWAY, and every other request of the connection is lost with this one.
#
# Servers that are handed status and body apart (ASGI) end each response with an empty DATA frame, so hypercorn's 304
# with a length is harmless over HTTP/1.1, and over HTTP/2 ends the connections of its own library's clients.
#
# Seen with Python 3.11 on 2026-11-30, what the client makes of content-length: 5 and no content:
#   HEAD, empty DATA: ResponseReceived, DataReceived, StreamEnded
#   304, END_STREAM with HEADERS: ResponseReceived, StreamEnded
#   304, empty DATA: InvalidBodyLengthError, and sends GOAWAY with PROTOCOL_ERROR
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0
"$folder/venv/bin/python" - <<'PYTHON'
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import InvalidBodyLengthError
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, SettingsFrame


def seen_by_a_client(method: str, status: str, ends_with_headers: bool) -> str:
    """What a client makes of a response of no content that says a length."""
    client = H2Connection()
    client.initiate_connection()
    request = [(":method", method), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")]
    client.send_headers(1, request, end_stream=True)
    client.receive_data(SettingsFrame(0).serialize())
    client.data_to_send()
    block = Encoder().encode([(":status", status), ("etag", '"x"'), ("content-length", "5")])
    response = HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"] if ends_with_headers else ["END_HEADERS"])
    received = response.serialize()
    if not ends_with_headers:
        received += DataFrame(1, b"", flags=["END_STREAM"]).serialize()
    try:
        return ", ".join(type(event).__name__ for event in client.receive_data(received))
    except InvalidBodyLengthError as error:
        sent = client.data_to_send()
        frame, length = Frame.parse_frame_header(memoryview(sent[:9]))
        frame.parse_body(memoryview(sent[9 : 9 + length]))
        assert isinstance(frame, GoAwayFrame)
        return f"{type(error).__name__}, and sends GOAWAY with {ErrorCodes(frame.error_code).name}"


seen = {
    "HEAD, empty DATA": seen_by_a_client("HEAD", "200", False),
    "304, END_STREAM with HEADERS": seen_by_a_client("GET", "304", True),
    "304, empty DATA": seen_by_a_client("GET", "304", False),
}
for case, told in seen.items():
    print(f"{case}: {told}")
assert list(seen.values()) == [
    "ResponseReceived, DataReceived, StreamEnded",
    "ResponseReceived, StreamEnded",
    "InvalidBodyLengthError, and sends GOAWAY with PROTOCOL_ERROR",
], "the behaviour has changed"
PYTHON
echo "as described"

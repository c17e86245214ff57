#!/usr/bin/env bash
# hpack 4.2.0 (PyPI; the header compression of h2, and httpx): an encoder whose table size is set twice to the same
# new value before its next block forgets to announce it. The second, equal assignment clears the note that the size has
# changed (HeaderTable.maxsize), so the block carries no "dynamic table size update" (RFC 7541 §6.3). The encoder then
# keeps an entry that the decoder, still at the smaller size, has let go, and refers to it: the decoder, here the same
# library's, finds an index of no entry, which ends an HTTP/2 connection with COMPRESSION_ERROR.
#
# It takes a peer that sends SETTINGS_HEADER_TABLE_SIZE twice with one value (two SETTINGS frames), which is allowed.
#
# Seen with Python 3.11 on 2026-11-29:
#   set once:  a size update, read back
#   set twice: no size update, InvalidTableIndexError
# Found by a property test that changes the size between any two blocks. `h2` users are safe where the peer says it once.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check hpack==4.2.0
"$folder/venv/bin/python" - <<'PYTHON'
from hpack import Decoder, Encoder, InvalidTableIndexError


def told(times: int) -> str:
    """What becomes of two blocks, with the table's size set to 79 so many times between them."""
    encoder, decoder = Encoder(), Decoder()
    encoder.header_table_size = 33  # too small for any entry
    decoder.decode(encoder.encode([(b"x-a", b"1")], huffman=False))
    for _ in range(times):
        encoder.header_table_size = 79  # room for one or two
    sent = [(b"x-a", b"1"), (b"x-a", b"1")]
    block = encoder.encode(sent, huffman=False)
    update = "a size update" if block[0] & 0xE0 == 0x20 else "no size update"
    try:
        read = decoder.decode(block, raw=True)
    except InvalidTableIndexError:
        return f"{update}, InvalidTableIndexError"
    return f"{update}, read back" if [(bytes(n), bytes(v)) for n, v in read] == sent else f"{update}, read wrongly"


seen = {times: told(times) for times in (1, 2)}
print(seen)
assert seen == {1: "a size update, read back", 2: "no size update, InvalidTableIndexError"}, "the behaviour has changed"
PYTHON
echo "as described"

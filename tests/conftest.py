"""What holds for every test."""

from __future__ import annotations

import signal

# A shell starts what it puts in the background with SIGINT ignored, and that is inherited: programs that the tests
# interrupt as a person does with Ctrl-C would never notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

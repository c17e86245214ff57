"""How load balancing works, in pure Python: no socket, no asyncio, no clock or random source of its own.

Time is handed in as `now`: seconds on a clock that never goes back, whose zero means nothing.
"""

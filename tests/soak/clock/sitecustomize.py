"""Put before a process's modules: its clock is off by so many seconds."""

import os
import time

_shift = float(os.environ.get("SOAK_CLOCK_SHIFT", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _shift
time.time_ns = lambda: _time_ns() + int(_shift * 1e9)

"""What every worker has loaded when it begins: the server imports this, from which they are forked.

Nothing here may start a thread or touch an accelerator: a fork would have lost the one and could not use the other.
"""

import importlib
import os
import signal

from advbench import notice

for name in ("launch", "run", "verdicts"):
    importlib.import_module(f"advbench.{name}")

# The workers end with this process, and this one with its driver: multiprocessing would have it wait for a worker that
# hangs. When a scheduler asks all processes of a group to end, the workers have checkpoints to write first.
notice.tie()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))

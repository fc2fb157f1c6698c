"""advbench: is this defense really better, at what cost, and why?

Nothing is imported here on purpose: a re-export would load torch into commands that never need it
(``advbench board``, a fully cached ``advbench run``). Import from the room that owns the name, for
example ``from advbench.threat import Threat``.
"""

__version__ = "0.1.0"

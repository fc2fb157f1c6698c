"""Statistics of verdicts: who stood, example by example, and what that supports.

    two rows of verdicts --paired-->     McNemar, an interval, odds
    two groups of rows   --difference--> an interval, as checkpoints or as defenses
    a whole board        --ranks-->      who is better than whom, and ranges of ranks

Numpy and scipy only. `docs/calibration.md` says how often the first two err.
"""

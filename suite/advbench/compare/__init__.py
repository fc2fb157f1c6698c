"""`advbench compare`: what two records, two groups of seeds or two results folders support, and what about.

    paths --read--> Groups of Results --match.pairs--> pairs that may be compared --comparison--> Comparisons

`show` tells them to a person or to a script.
"""

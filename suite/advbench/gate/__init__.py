"""`advbench check`: does a new result hold what an old one reached, within a margin?

    NEW, OLD --compare.read, compare.match--> pairs --judge--> Judgements --publish--> text, Markdown, JUnit XML

A pair is judged by limits, in `limits` those on accuracy and cost, in `probes` those that no sampling error excuses.
Every limit says PASS, FAIL or INCONCLUSIVE; a gate that must say one of two says FAIL to noise.
"""

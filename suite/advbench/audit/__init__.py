"""`advbench audit`: what a record says, held to the model that it is about.

    record --claim.read--> Claim --examine--> Findings of its digests, its files, its examples --> a verdict

`repeat` is the test of the verdicts that a second attack found otherwise.
"""

"""`advbench check`: does a new result hold what an old one reached?"""

"""`advbench results`: what lies in a results folder, checked, tidied and joined. Nothing here loads torch."""

"""Evaluation of grounded captions: the paper's numbers to the last digit, and the corrected ones beside them."""

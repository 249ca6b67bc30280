"""Length predictors, one a file: how long outputs are thought to be.

All but `constant` are made from the true lengths, which stand in for the text that a real predictor
reads, and differ in how much of the truth they give away.
"""

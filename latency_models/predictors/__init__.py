"""Predictors of cost from a workload: a roofline prior and a calibrated block table."""

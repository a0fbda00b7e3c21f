"""Predict files with a trained model and write a CSV."""

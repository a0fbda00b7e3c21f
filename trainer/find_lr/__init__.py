"""Suggest a learning rate by a range test."""

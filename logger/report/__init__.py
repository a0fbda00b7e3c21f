"""Reports of test.py: classification report, confusion matrix, worst samples."""

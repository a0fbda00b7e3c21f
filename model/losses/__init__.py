"""Losses, a file each: every public function (output, target) and class can be named."""

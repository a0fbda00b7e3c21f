"""Run the step of a diverged run again, to find where it went wrong."""

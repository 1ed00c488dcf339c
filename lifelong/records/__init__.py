"""What stands in the files of a run, typed: written by the runner, read by reports, comparisons, reproduction and `Learner`."""

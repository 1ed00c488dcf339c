"""What is timed, against what: see README.md here. Run all with `make bench`."""

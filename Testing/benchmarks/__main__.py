"""`python -m Testing.benchmarks`, which is what `make bench` runs."""

from .bench import main

if __name__ == "__main__":
    main()

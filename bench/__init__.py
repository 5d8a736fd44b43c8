"How minidiff stands beside what you would pick instead: `make bench`, or one part, such as `python -m bench.overhead`"

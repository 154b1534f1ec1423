"""`python -m findnemo` is `findnemo`."""

from findnemo.cli import main

main()
